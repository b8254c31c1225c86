//! A MongoDB replica set on this machine.

use std::ops::Range;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use mongodb::bson::{Bson, Document, doc};
use tokio::time;

use crate::mongod::{Mongod, Options};

/// The name of the set, as in connection strings.
const NAME: &str = "rs0";
/// Maximum duration of an election or a first synchronisation, far more than they need on a busy machine.
const ELECTION_TIMEOUT: Duration = Duration::from_secs(90);

/// A replica set whose members are numbered from 0; all of them are killed when it is dropped.
///
/// Elections are quick (timeout 2 s, heartbeats each 500 ms), so that a test sees a new primary within seconds.
/// Methods that take a member's number panic when there is no such member.
#[derive(Debug)]
pub struct ReplicaSet {
    members: Vec<Member>,
}

#[derive(Debug)]
struct Member {
    mongod: Mongod,
    state: State,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum State {
    Up,
    /// Accepts connections and never answers, so it must not be asked.
    Frozen,
    Killed,
}

impl ReplicaSet {
    /// Starts `n` members, initiates the set and waits for a primary and for all others to be secondaries.
    ///
    /// # Errors
    /// When a member does not start, or the set is not complete after 90 s.
    pub async fn start(n: usize) -> Result<Self> {
        ensure!(n > 0, "a replica set needs a member");
        let start = || tokio::spawn(Mongod::start(Options::default().replica_set(NAME)));
        let starting: Vec<_> = (0..n).map(|_| start()).collect();
        let mut members = Vec::with_capacity(n);
        for mongod in starting {
            members.push(Member { mongod: mongod.await??, state: State::Up });
        }
        let set = Self { members };
        set.initiate().await?;
        set.wait_for_primary().await?;
        set.wait_for_secondaries().await?;
        Ok(set)
    }

    /// Returns the connection string that names all members and the set.
    #[must_use]
    pub fn uri(&self) -> String {
        let hosts: Vec<_> = self.members.iter().map(Member::host).collect();
        format!("mongodb://{}/?replicaSet={NAME}", hosts.join(","))
    }

    /// Returns the numbers of all members.
    #[must_use]
    pub fn members(&self) -> Range<usize> {
        0..self.members.len()
    }

    /// Returns the server of member `i`, for example for a fail point.
    #[must_use]
    pub fn member(&self, i: usize) -> &Mongod {
        &self.members[i].mongod
    }

    /// Returns the number of the member that is the writable primary at this moment, if any.
    ///
    /// A primary that was cut off may think itself one for some seconds next to its successor; then the member
    /// that was elected last is returned.
    pub async fn primary(&self) -> Option<usize> {
        let mut newest = None;
        for (i, hello) in self.hello_of_all().await {
            if !hello.get_bool("isWritablePrimary").unwrap_or(false) {
                continue;
            }
            // The election id grows with the term of the election.
            let elected = hello.get_object_id("electionId").map(|id| id.bytes()).unwrap_or_default();
            newest = newest.max(Some((elected, i)));
        }
        newest.map(|(_, i)| i)
    }

    /// Waits until there is a writable primary and returns its number.
    ///
    /// # Errors
    /// When there is none after 90 s.
    pub async fn wait_for_primary(&self) -> Result<usize> {
        let deadline = Instant::now() + ELECTION_TIMEOUT;
        loop {
            if let Some(i) = self.primary().await {
                return Ok(i);
            }
            self.pause_before(deadline, "a primary").await?;
        }
    }

    /// Waits until every member that is up is the primary or a secondary.
    ///
    /// # Errors
    /// When that is not so after 90 s.
    pub async fn wait_for_secondaries(&self) -> Result<()> {
        let deadline = Instant::now() + ELECTION_TIMEOUT;
        let serves = |hello: &Document, role| hello.get_bool(role).unwrap_or(false);
        loop {
            let answers = self.hello_of_all().await;
            let serving = answers
                .iter()
                .filter(|(_, hello)| serves(hello, "isWritablePrimary") || serves(hello, "secondary"));
            if serving.count() == self.members.iter().filter(|member| member.state == State::Up).count() {
                return Ok(());
            }
            self.pause_before(deadline, "all members to serve").await?;
        }
    }

    /// Makes the primary step down and refuse to be elected again for `seconds` (at least 2).
    ///
    /// It waits a second for a secondary to catch up, and then steps down in any case.
    /// [`wait_for_primary`](Self::wait_for_primary) returns its successor.
    ///
    /// # Errors
    /// When there is no primary, or it refuses.
    pub async fn step_down(&self, seconds: u32) -> Result<()> {
        let primary = self.primary().await.context("cannot step down: there is no primary")?;
        let command =
            doc! { "replSetStepDown": i64::from(seconds), "secondaryCatchUpPeriodSecs": 1, "force": true };
        self.member(primary).admin_command(command).await?;
        Ok(())
    }

    /// Sends SIGKILL to member `i` and waits until it is gone.
    ///
    /// # Errors
    /// When the system refuses the signal.
    pub fn kill(&mut self, i: usize) -> Result<()> {
        self.members[i].mongod.kill()?;
        self.members[i].state = State::Killed;
        Ok(())
    }

    /// Sends SIGSTOP to member `i`: its connections stay open and nothing is answered any more.
    ///
    /// # Errors
    /// When the member does not run.
    pub fn freeze(&mut self, i: usize) -> Result<()> {
        self.members[i].mongod.freeze()?;
        self.members[i].state = State::Frozen;
        Ok(())
    }

    /// Sends SIGCONT to member `i`: it goes on where it was frozen.
    ///
    /// # Errors
    /// When the member does not run.
    pub fn thaw(&mut self, i: usize) -> Result<()> {
        self.members[i].mongod.thaw()?;
        self.members[i].state = State::Up;
        Ok(())
    }

    /// Kills member `i` if it runs, and starts it again on its port and files. It answers when this returns, but
    /// may still be catching up: see [`wait_for_secondaries`](Self::wait_for_secondaries).
    ///
    /// # Errors
    /// As [`Mongod::restart`].
    pub async fn restart(&mut self, i: usize) -> Result<()> {
        self.members[i].mongod.restart().await?;
        self.members[i].state = State::Up;
        Ok(())
    }

    async fn initiate(&self) -> Result<()> {
        let members = self.members().zip(&self.members);
        let members: Vec<_> = members
            .map(|(i, member)| Ok(Bson::from(doc! { "_id": i32::try_from(i)?, "host": member.host() })))
            .collect::<Result<_>>()?;
        let settings = doc! {
            "electionTimeoutMillis": 2_000,
            "heartbeatIntervalMillis": 500,
            "heartbeatTimeoutSecs": 2,
        };
        let config = doc! { "_id": NAME, "members": members, "settings": settings };
        self.member(0).admin_command(doc! { "replSetInitiate": config }).await?;
        Ok(())
    }

    /// Asks every member that is up for its role; one that does not answer is left out.
    async fn hello_of_all(&self) -> Vec<(usize, Document)> {
        let mut answers = Vec::new();
        for (i, member) in self.members.iter().enumerate().filter(|(_, member)| member.state == State::Up) {
            if let Ok(hello) = member.mongod.admin_command(doc! { "hello": 1 }).await {
                answers.push((i, hello));
            }
        }
        answers
    }

    async fn pause_before(&self, deadline: Instant, awaited: &str) -> Result<()> {
        if Instant::now() >= deadline {
            bail!("waited {ELECTION_TIMEOUT:?} for {awaited}; members say {:?}", self.hello_of_all().await);
        }
        time::sleep(Duration::from_millis(50)).await;
        Ok(())
    }
}

impl Member {
    fn host(&self) -> String {
        format!("127.0.0.1:{}", self.mongod.port())
    }
}
