//! Processes that die at exactly the wrong place, and then at another one while they recover.

use std::path::Path;

use rand::{Rng, rngs::StdRng};

use super::{
    books::{Books, Stored, deliver, last},
    kill::random,
    node::Start,
};
use crate::support::CounterFile;

/// A place where a process dies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// A place in the journal.
    Journal(&'static str),
    /// Where the store is asked.
    Store(&'static str),
}

/// All places, in the order in which a count meets them.
pub(super) const PLACES: [Place; 12] = [
    // While the journal is opened: the epoch is not durable yet, or it is and nobody knows.
    Place::Journal("open.before"),
    Place::Journal("open.after"),
    // Before and after the commit that makes an operation durable; nobody was told of either.
    Place::Journal("record.before"),
    Place::Journal("record.after"),
    // Before a batch is frozen, and after it but before it is sent.
    Place::Journal("freeze.before"),
    Place::Journal("freeze.after"),
    Place::Store("before"),
    // After it was sent, before the reply.
    Place::Store("after"),
    // After the reply, before the journal forgets and after it has forgotten.
    Place::Journal("resolve.before"),
    Place::Journal("resolve.after"),
    // While the journal moves its log into its file, and while it has another request.
    Place::Journal("checkpoint"),
    // Not at all: killed from outside.
    Place::Store(""),
];

/// Tasks of each process.
const TASKS: usize = 6;

/// Starts a process that dies the `nth` time it comes by a place, and waits for its death.
pub(super) fn die_at(place: Place, nth: u32, store: &str, journal: &Path, name: &str, books: &mut Books) {
    let start = Start::new(store, journal)
        .with("prefix", name)
        .with("tasks", TASKS)
        .with("flush", 10)
        .with("batch", 20)
        // Small, so that the log is moved into the file often.
        .with("max_bytes", 1 << 20);
    let lines = match place {
        Place::Journal(place) => start.failing(&format!("{place}=abort@{nth}")).start().wait_for_death(place),
        Place::Store("") => {
            let mut node = start.start();
            node.wait_for_acknowledgements(usize::try_from(nth).unwrap());
            node.kill()
        }
        Place::Store(place) => start.with("die", format!("{place}@{nth}")).start().wait_for_death(place),
    };
    books.enter(lines, TASKS);
}

/// Chooses how often a place is passed before the process dies there.
pub(super) fn nth(place: Place, random: &mut StdRng) -> u32 {
    match place {
        Place::Journal("open.before" | "open.after") => 1,
        _ => random.random_range(1..=4),
    }
}

/// Every place, and then every place for the process that recovers: also the same one twice in a row.
#[test]
fn a_process_may_die_anywhere_and_again_while_it_recovers() {
    let mut random = random();
    for first in PLACES {
        let (file, mut books) = (CounterFile::new(), Books::default());
        let journal = file.folder().join("journal");
        for (round, second) in PLACES.into_iter().enumerate() {
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
