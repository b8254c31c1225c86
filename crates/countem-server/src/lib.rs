//! countem over HTTP: counting, reading and operating, for every language.
//!
//! [`run`] opens the store and the journal of a configuration, serves until a signal asks to stop, and stores what is pending. The API
//! describes itself at `/openapi.json`.
//!
//! # The promise of an answer
//!
//! | `guarantee` | an increment that was answered with 200 |
//! |---|---|
//! | `memory` | is counted; lost if the process is killed within the next moments |
//! | `journal` | survives the end of the process and of the power, and is stored once by the next start |
//! | `store` | is in the store |
//!
//! An answer with a 4xx status counted nothing of the request. After a 5xx status, or none, the code says what is known.
//!
//! # Access
//!
//! Without a file of tokens every sender that reaches the server may do everything; so it listens on this machine alone, and checks that
//! no web page of another site sends the request. With tokens each request needs one that has the role.

mod auth;
mod http;
mod metrics;
mod problem;
mod server;
mod state;
mod stream;
mod tls;

pub use auth::tokens::{Role, Token, Tokens};
pub use problem::Code;
pub use server::{ServeError, Served, Serving, run};
