//! Use of the machine by other programs during a measurement.

use std::fs;

/// Processor time since the machine started, in ticks.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Usage {
    all: u64,
    idle: u64,
    /// Used by this process and the ones that it started.
    own: u64,
}

impl Usage {
    /// Reads what Linux tells; `None` elsewhere.
    pub(crate) fn now() -> Option<Self> {
        let machine = fs::read_to_string("/proc/stat").ok()?;
        let own = fs::read_to_string("/proc/self/stat").ok()?;
        Self::read(&machine, &own)
    }

    fn read(machine: &str, own: &str) -> Option<Self> {
        let ticks = |text: &str| text.parse::<u64>().ok();
        // user nice system idle iowait irq softirq steal; what follows is part of the first two.
        let fields = machine.lines().next()?.strip_prefix("cpu ")?.split_ascii_whitespace().take(8);
        let machine: Vec<u64> = fields.map_while(ticks).collect();
        // The second field is the name of the program in parentheses and may hold anything; utime, stime, cutime and
        // cstime are the fields 14 to 17.
        let (_, after_name) = own.rsplit_once(')')?;
        let own = after_name.split_ascii_whitespace().skip(11).take(4).map_while(ticks).sum();
        Some(Self { all: machine.iter().sum(), idle: machine.get(3)? + machine.get(4)?, own })
    }

    /// Returns which part of the machine others used between two moments, 0 to 1.
    pub(crate) fn share_of_others(self, later: Self) -> f64 {
        let since = |now: u64, then: u64| now.saturating_sub(then) as f64;
        let busy = since(later.all, self.all) - since(later.idle, self.idle);
        let others = busy - since(later.own, self.own);
        (others / since(later.all, self.all).max(1.0)).clamp(0.0, 1.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_neither_idle_nor_own_belongs_to_others() {
        let before =
            Usage::read("cpu  100 0 0 900 0 0 0 0 0 0\n", "7 (a) b) R 1 1 1 1 1 1 1 1 1 1 10 0 0 0 20 0");
        let after =
            Usage::read("cpu  160 10 20 990 10 0 5 5 9 9\n", "7 (a) b) R 1 1 1 1 1 1 1 1 1 1 30 10 5 5 20 0");
        let (before, after) = (before.unwrap(), after.unwrap());
        assert_eq!((before.own, after.own, after.all - before.all), (10, 50, 200));
        // 100 of 200 ticks were busy, 40 of them own.
        assert_eq!(before.share_of_others(after), 0.3);
    }
}
