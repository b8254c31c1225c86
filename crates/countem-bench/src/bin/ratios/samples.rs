//! Times of several things, round by round.

/// Times of several things that were measured in turns: one list per thing, one entry per round.
#[derive(Debug, Clone)]
pub(crate) struct Samples {
    times: Vec<Vec<f64>>,
}

impl Samples {
    /// Measures each of `things` once per round, `rounds` times: `time` is asked for one thing after the other. The first
    /// round is for caches and clocks, and is thrown away.
    pub(crate) fn in_turns(rounds: usize, things: usize, mut time: impl FnMut(usize) -> f64) -> Self {
        let mut times = vec![Vec::with_capacity(rounds); things];
        for round in 0..=rounds {
            for (thing, times) in times.iter_mut().enumerate() {
                let took = time(thing);
                if round > 0 {
                    times.push(took);
                }
            }
        }
        Self { times }
    }

    /// Returns the median time of a thing.
    pub(crate) fn median(&self, thing: usize) -> f64 {
        median(self.times[thing].clone())
    }

    /// Returns the shortest time of a thing: what it takes when nothing else happens on the machine.
    pub(crate) fn best(&self, thing: usize) -> f64 {
        self.times[thing].iter().copied().fold(f64::INFINITY, f64::min)
    }

    /// Returns the median over the rounds of how many times longer `a` took than `b`.
    pub(crate) fn ratio(&self, a: usize, b: usize) -> f64 {
        median(self.times[a].iter().zip(&self.times[b]).map(|(a, b)| a / b).collect())
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    match (values.len() / 2, values.len() % 2) {
        (0, 0) => f64::NAN,
        (half, 0) => f64::midpoint(values[half - 1], values[half]),
        (half, _) => values[half],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_ignores_a_disturbed_round() {
        assert_eq!(median(vec![2.0, 900.0, 1.0]), 2.0);
        assert_eq!(median(vec![1.0, 2.0, 3.0, 900.0]), 2.5);
    }

    #[test]
    fn things_alternate_and_are_compared_per_round() {
        let mut asked = 0.0;
        let samples = Samples::in_turns(4, 2, |thing| {
            asked += 0.5;
            if thing == 0 { 3.0 * (asked + 0.5) } else { asked }
        });
        assert_eq!(samples.times, [[6.0, 9.0, 12.0, 15.0], [2.0, 3.0, 4.0, 5.0]]);
        assert_eq!((samples.ratio(0, 1), samples.best(1), samples.median(0)), (3.0, 2.0, 10.5));
    }
}
