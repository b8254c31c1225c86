//! Processes that die at a fail point, and then at another one while they recover.
//!
//! Shows G9.

use std::path::Path;

use rand::{Rng, rngs::StdRng};

use super::{
    books::{Books, Stored, deliver, last},
    kill::random,
    node::Start,
};
use crate::support::CounterFile;

/// A point at which a process dies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FailPoint {
    /// A fail point of the journal.
    Journal(&'static str),
    /// A call of the store.
    Store(&'static str),
}

/// All fail points, in the order in which a count meets them.
pub(super) const FAIL_POINTS: [FailPoint; 12] = [
    // While the journal is opened: the epoch is not durable yet, or it is and no caller knows.
    FailPoint::Journal("open.before"),
    FailPoint::Journal("open.after"),
    // Before and after the commit that makes an operation durable; neither was acknowledged.
    FailPoint::Journal("record.before"),
    FailPoint::Journal("record.after"),
    // Before a batch is frozen, and after it but before it is sent.
    FailPoint::Journal("freeze.before"),
    FailPoint::Journal("freeze.after"),
    FailPoint::Store("before"),
    // After it was sent, before the reply.
    FailPoint::Store("after"),
    // After the reply, before the journal forgets and after it has forgotten.
    FailPoint::Journal("resolve.before"),
    FailPoint::Journal("resolve.after"),
    // While the journal moves its log into its file, and while it has another request.
    FailPoint::Journal("checkpoint"),
    // Not at all: killed from outside.
    FailPoint::Store(""),
];

/// Tasks of each process.
const TASKS: usize = 6;

/// Starts a process that dies the `nth` time it reaches a fail point, and waits for its death.
pub(super) fn die_at(point: FailPoint, nth: u32, store: &str, journal: &Path, name: &str, books: &mut Books) {
    let start = Start::new(store, journal)
        .with("prefix", name)
        .with("tasks", TASKS)
        .with("flush", 10)
        .with("batch", 20)
        // Small, so that the log is moved into the file often.
        .with("max_bytes", 1 << 20);
    let lines = match point {
        FailPoint::Journal(point) => {
            let actions = format!("{}*off->return(abort)", nth - 1);
            start.failing(point, &actions).start().wait_for_death(point)
        }
        FailPoint::Store("") => {
            let mut node = start.start();
            node.wait_for_acknowledgements(usize::try_from(nth).unwrap());
            node.kill()
        }
        FailPoint::Store(point) => start.with("die", format!("{point}@{nth}")).start().wait_for_death(point),
    };
    books.enter(lines, TASKS);
}

/// Chooses how often a fail point is passed before the process dies there.
pub(super) fn nth(point: FailPoint, random: &mut StdRng) -> u32 {
    match point {
        FailPoint::Journal("open.before" | "open.after") => 1,
        _ => random.random_range(1..=4),
    }
}

/// Every pair of fail points: of the first process, and of the one that recovers. Also the same one twice in a row.
#[test]
fn process_may_die_anywhere_also_while_recovering() {
    let mut random = random();
    for first in FAIL_POINTS {
        let (file, mut books) = (CounterFile::new(), Books::default());
        let journal = file.folder().join("journal");
        for (round, second) in FAIL_POINTS.into_iter().enumerate() {
            let nth = nth(first, &mut random);
            let name = format!("{first:?}.{round}");
            die_at(first, nth, &file.uri(), &journal, &format!("{name}.a"), &mut books);
            // The first time it comes there: as early in the recovery as can be.
            die_at(second, 1, &file.uri(), &journal, &format!("{name}.b"), &mut books);
        }
        deliver(&last(&file, &journal));
        println!("{first:?}: {} acknowledged", books.acknowledged());
        books.check(&Stored::of(&file));
        assert_eq!((books.unsure(), books.refused()), (0, 0), "nothing was wrong with the journal");
    }
}
