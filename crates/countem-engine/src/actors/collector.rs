//! Collector actors.

use std::sync::Arc;

use actix::prelude::*;

use crate::collect::Intake;

/// Drains the table of one collector when the ticker says so.
///
/// The table itself belongs to the [`Intake`]: threads fold increments into it in place, because a message for each costs
/// twenty times as much. So an actor that dies takes no count with it.
///
/// All collector actors share one thread and drain one after another: their deltas meet in the same few lanes, whose locks
/// would make parallel drains wait for each other. A call that must find the deltas in the lanes when it returns (a flush, a
/// journal round, a shutdown, a full table) drains directly, since a message may wait behind an actor that is being replaced.
pub(super) struct CollectorActor {
    pub(super) intake: Arc<Intake>,
    /// The collector index.
    pub(super) index: usize,
}

/// Asks a collector to move the counts of its table to the lanes.
#[derive(Message)]
#[rtype(result = "()")]
pub(super) struct Drain;

/// Tells a collector that threads do not use its table any more: drains it and stops.
#[derive(Message)]
#[rtype(result = "()")]
pub(super) struct Retire;

impl Actor for CollectorActor {
    type Context = Context<Self>;
}

impl Handler<Drain> for CollectorActor {
    type Result = ();
    fn handle(&mut self, _: Drain, _: &mut Self::Context) {
        self.intake.drain(self.index);
    }
}

impl Handler<Retire> for CollectorActor {
    type Result = ();
    fn handle(&mut self, _: Retire, ctx: &mut Self::Context) {
        self.intake.drain(self.index);
        ctx.stop();
    }
}

#[cfg(all(test, not(feature = "shuttle")))]
impl Handler<super::supervisor::Panic> for CollectorActor {
    type Result = ();
    fn handle(&mut self, _: super::supervisor::Panic, _: &mut Self::Context) {
        panic!("a collector actor panics (injected)");
    }
}
