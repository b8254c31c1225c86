//! Requests to the journal thread.

use crate::{
    error::{Failure, JournalError},
    thread::transaction::Transaction,
};

/// Receives the outcome of a request, once, on the journal thread. Has to return soon and may make further requests.
pub(crate) type Done<T> = Box<dyn FnOnce(T) + Send>;

/// A part of a transaction, and the answer to its caller.
pub(crate) trait Request: Send {
    /// Returns the name of the fail points around its commit.
    fn point(&self) -> &'static str;

    /// Returns its urgency.
    fn urgency(&self) -> Urgency;

    /// Executes its part of a transaction. Called again when the transaction was not committed.
    fn execute(&mut self, transaction: &mut Transaction<'_>) -> Result<(), Failure>;

    /// Answers the caller with the number of the transaction that was committed, or with the reason why none was.
    fn finish(self: Box<Self>, outcome: Result<u64, JournalError>);
}

/// Urgency of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Urgency {
    /// Executed at once, and fails when that is not possible.
    Now,
    /// Executed at once, and repeated until it succeeds.
    Insistent,
    /// Executed along with others, and repeated until it succeeds.
    Lazy,
}

/// A request made of a function that executes it and returns the answer.
pub(crate) struct Call<T, F> {
    point: &'static str,
    urgency: Urgency,
    execute: F,
    answer: Option<T>,
    done: Done<Result<T, JournalError>>,
}

impl<T, F> Call<T, F>
where
    T: Send + 'static,
    F: FnMut(&mut Transaction<'_>) -> Result<T, Failure> + Send + 'static,
{
    pub(crate) fn boxed(
        point: &'static str,
        urgency: Urgency,
        execute: F,
        done: impl FnOnce(Result<T, JournalError>) + Send + 'static,
    ) -> Box<dyn Request> {
        Box::new(Self { point, urgency, execute, answer: None, done: Box::new(done) })
    }
}

impl<T, F> Request for Call<T, F>
where
    T: Send,
    F: FnMut(&mut Transaction<'_>) -> Result<T, Failure> + Send,
{
    fn point(&self) -> &'static str {
        self.point
    }

    fn urgency(&self) -> Urgency {
        self.urgency
    }

    fn execute(&mut self, transaction: &mut Transaction<'_>) -> Result<(), Failure> {
        self.answer = Some((self.execute)(transaction)?);
        Ok(())
    }

    fn finish(self: Box<Self>, outcome: Result<u64, JournalError>) {
        let Self { answer, done, .. } = *self;
        done(outcome.map(|_| answer.expect("a committed transaction has executed the request")));
    }
}
