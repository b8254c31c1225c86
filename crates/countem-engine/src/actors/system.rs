//! The thread and the runtime of an engine.

use std::{cell::Cell, io, sync::Arc, sync::mpsc, thread, time::Duration};

use actix_rt::{ArbiterHandle, System};
use tokio::runtime::{self, Runtime};

/// The thread on which actors live, and the runtime that runs the store's I/O.
///
/// The actix `System` shares our own multi-thread runtime, so a host may run tokio, actix-web or no runtime at all.
#[derive(Debug)]
pub(crate) struct ActorSystem {
    system: System,
    pub(super) arbiter: ArbiterHandle,
    pub(crate) runtime: runtime::Handle,
}

thread_local! {
    static IS_ENGINE_THREAD: Cell<bool> = const { Cell::new(false) };
}

/// Tells whether this thread belongs to an engine, which could not go on while it waits for the engine.
pub(crate) fn on_engine_thread() -> bool {
    IS_ENGINE_THREAD.with(Cell::get)
}

/// Time between the end of the actors and that of their runtime, in which the task that asked for it finishes.
const LAST_TASK_GRACE: Duration = Duration::from_millis(1);

impl ActorSystem {
    /// Starts the thread and the runtime.
    pub(crate) fn start(workers: usize) -> io::Result<Self> {
        let (ready, started) = mpsc::sync_channel(1);
        thread::Builder::new().name("countem".to_owned()).spawn(move || {
            IS_ENGINE_THREAD.set(true);
            let built = runtime::Builder::new_multi_thread()
                .worker_threads(workers)
                .thread_name("countem-io")
                .on_thread_start(|| IS_ENGINE_THREAD.set(true))
                .enable_all()
                .build();
            let runtime = match built {
                Ok(runtime) => Arc::new(runtime),
                Err(error) => return drop(ready.send(Err(error))),
            };
            let handle = runtime.handle().clone();
            run(runtime, |system, arbiter| {
                drop(ready.send(Ok(Self { system, arbiter, runtime: handle })));
            });
        })?;
        started.recv().map_err(|_| io::Error::other("the actor thread ended before it began"))?
    }

    /// Ends the thread and the runtime.
    pub(crate) fn stop(&self) {
        self.system.stop();
    }

    /// Ends the thread and the runtime, a moment from now so that the caller's task can finish first.
    pub(super) fn stop_soon(&self) {
        let system = self.system.clone();
        self.runtime.spawn(async move {
            tokio::time::sleep(LAST_TASK_GRACE).await;
            system.stop();
        });
    }
}

fn run(runtime: Arc<Runtime>, started: impl FnOnce(System, ArbiterHandle)) {
    let runner = System::with_tokio_rt(|| runtime);
    let system = System::current();
    let arbiter = system.arbiter().clone();
    started(system, arbiter);
    if let Err(error) = runner.run() {
        tracing::error!(%error, "actor system ended");
    }
}
