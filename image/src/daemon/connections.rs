//! The connections to a daemon. Its socket may be root's only, so enough of them are opened before privileges are
//! dropped, used again and again, and kept from falling idle afterwards.

use std::{
    io,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError, Weak,
        mpsc::{self, RecvTimeoutError, Sender},
    },
    thread,
    time::Duration,
};

use nix::unistd::{Uid, geteuid};

use super::{
    host::Host,
    http::{Answer, Body, Connection, Failure, Request},
};
use crate::{Error, Result};

/// One for what is going on, others for when the daemon closes it, as it does where it refuses an image.
const SPARE: usize = 4;
/// Services that are started by their socket end after five idle seconds.
const PING_EVERY: Duration = Duration::from_secs(1);

/// All connections of a process.
#[derive(Debug)]
pub(super) struct Connections {
    pub(super) host: Host,
    state: Mutex<State>,
    freed: Condvar,
    /// Who opened the first ones.
    opened_as: Uid,
    /// Ends the thread that pings, by being dropped.
    pinging: OnceLock<Sender<()>>,
}

#[derive(Debug, Default)]
struct State {
    idle: Vec<Connection>,
    busy: usize,
}

impl Connections {
    /// # Errors
    /// The daemon cannot be reached.
    pub(super) fn open(host: Host) -> Result<Arc<Self>> {
        let opened_as = geteuid();
        // Nobody but root has privileges to drop.
        let enough = if matches!(host, Host::Unix(_)) && opened_as.is_root() { SPARE } else { 1 };
        let dialled: io::Result<Vec<_>> = (0..enough).map(|_| host.dial().map(Connection::new)).collect();
        let idle = dialled.map_err(|e| Error::Remote(format!("connect to the daemon at {host}: {e}")))?;
        let state = Mutex::new(State { idle, busy: 0 });
        Ok(Arc::new(Self { host, state, freed: Condvar::new(), opened_as, pinging: OnceLock::new() }))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends a request that has no body, on another connection where one was closed meanwhile.
    pub(super) fn call<T>(
        self: &Arc<Self>,
        request: &Request<'_>,
        read: &mut dyn FnMut(&mut Answer<'_>) -> Result<T>,
    ) -> Result<T> {
        self.keep_alive();
        loop {
            let (connection, used) = self.take()?;
            match self.run(connection, request, None, read) {
                Err(Failure::Broken(_)) if used => {}
                other => return other.map_err(|failure| self.error(request, failure))?,
            }
        }
    }

    /// Sends a request with a body.
    pub(super) fn send<T>(
        self: &Arc<Self>,
        request: &Request<'_>,
        body: Body<'_>,
        read: &mut dyn FnMut(&mut Answer<'_>) -> Result<T>,
    ) -> Result<T> {
        self.keep_alive();
        let (connection, _) = self.take()?;
        self.run(connection, request, Some(body), read).map_err(|failure| self.error(request, failure))?
    }

    fn error(&self, request: &Request<'_>, failure: Failure) -> Error {
        match failure {
            Failure::Body(error) => error,
            Failure::Broken(e) => {
                let path = request.target.split('?').next().unwrap_or_default();
                Error::Remote(format!("{} {}{path}: {e}", request.method, self.host))
            }
        }
    }

    fn run<T>(
        &self,
        mut connection: Connection,
        request: &Request<'_>,
        body: Option<Body<'_>>,
        read: &mut dyn FnMut(&mut Answer<'_>) -> Result<T>,
    ) -> std::result::Result<Result<T>, Failure> {
        let mut usable = false;
        let done = connection.send(request, body).map(|mut answer| {
            let result = read(&mut answer);
            usable = answer.finish();
            result
        });
        let mut state = self.lock();
        state.busy -= 1;
        if usable {
            state.idle.push(connection);
        }
        drop(state);
        self.freed.notify_one();
        done
    }

    /// An idle connection, else a new one, else, where we may not open any, the next that falls idle. Says whether
    /// it was used before.
    fn take(&self) -> Result<(Connection, bool)> {
        let mut state = self.lock();
        loop {
            while let Some(mut connection) = state.idle.pop() {
                if connection.is_open() {
                    state.busy += 1;
                    let used = connection.used;
                    return Ok((connection, used));
                }
            }
            match self.host.dial() {
                Ok(stream) => {
                    state.busy += 1;
                    return Ok((Connection::new(stream), false));
                }
                Err(e) if e.kind() == io::ErrorKind::PermissionDenied && state.busy > 0 => {
                    state = self.freed.wait(state).unwrap_or_else(PoisonError::into_inner);
                }
                Err(e) if e.kind() == io::ErrorKind::PermissionDenied && self.dropped() => {
                    return Err(Error::Remote(format!(
                        "the daemon at {} closed the connections that were opened for it, and user {} may not open \
                         others: {e}",
                        self.host,
                        geteuid()
                    )));
                }
                Err(e) => return Err(Error::Remote(format!("connect to the daemon at {}: {e}", self.host))),
            }
        }
    }

    /// Whether privileges were dropped since.
    fn dropped(&self) -> bool {
        geteuid() != self.opened_as
    }

    /// Pings from now on, if connections that are lost cannot be had again. Not before privileges are dropped, which
    /// should be done while there is one thread only.
    fn keep_alive(self: &Arc<Self>) {
        if !matches!(self.host, Host::Unix(_)) || !self.dropped() {
            return;
        }
        self.pinging.get_or_init(|| {
            let (sender, ended) = mpsc::channel();
            let this = Arc::downgrade(self);
            thread::spawn(move || {
                while let Err(RecvTimeoutError::Timeout) = ended.recv_timeout(PING_EVERY) {
                    ping_idle(&this);
                }
            });
            sender
        });
    }
}

fn ping_idle(connections: &Weak<Connections>) {
    let Some(connections) = connections.upgrade() else { return };
    let request = Request { method: "GET", target: "/_ping", host: connections.host.header(), patient: false };
    // As taken from one end and given back at the other, each gets its turn.
    let idle = connections.lock().idle.len();
    for _ in 0..idle {
        let mut state = connections.lock();
        if state.idle.is_empty() {
            return;
        }
        let connection = state.idle.remove(0);
        state.busy += 1;
        drop(state);
        let pinged = connections.run(connection, &request, None, &mut |_| Ok(()));
        if let Err(Failure::Broken(e)) = pinged {
            tracing::debug!("ping error: {e}");
        }
    }
}
