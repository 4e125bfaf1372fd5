//! Connections by TCP, to whichever address of a name answers first (RFC 8305, "Happy Eyeballs"). ureq's own connector
//! leaves most of its time to the first address, and has none for the others where an address is in a family that the
//! kernel does not know.

use std::{
    io::{self, Read, Write},
    mem,
    net::{SocketAddr, TcpStream},
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
    net::{AddressFamily, RecvFlags, SocketFlags, SocketType, connect, recv, socket_with},
};
use ureq::{
    Error,
    unversioned::transport::{
        Buffers, ConnectionDetails, Connector, Either, LazyBuffers, NextTimeout, Transport, time,
    },
};

use super::failure::is_temporary;

/// How long an address is alone before the next one is tried beside it (RFC 8305, section 5).
const ALONE: Duration = Duration::from_millis(250);

/// ureq's connector, but that addresses are tried side by side.
#[derive(Debug)]
pub(super) struct Tcp;

impl<In: Transport> Connector<In> for Tcp {
    type Out = Either<In, Plain>;

    fn connect(&self, details: &ConnectionDetails<'_>, inner: Option<In>) -> Result<Option<Self::Out>, Error> {
        // A tunnel through a proxy is there already.
        if let Some(inner) = inner {
            return Ok(Some(Either::A(inner)));
        }
        let end = match details.now + details.timeout.after {
            time::Instant::Exact(end) => Some(end),
            _ => None,
        };
        let socket = first_to_answer(&details.addrs, end)?.ok_or(Error::Timeout(details.timeout.reason))?;
        socket.set_nonblocking(false)?;
        socket.set_nodelay(true)?;
        let buffers = LazyBuffers::new(details.config.input_buffer_size(), details.config.output_buffer_size());
        Ok(Some(Either::B(Plain { socket, buffers, reads: None, writes: None })))
    }
}

/// A connection to one of these addresses; `None`: none answered in time. The others are closed.
fn first_to_answer(addresses: &[SocketAddr], end: Option<Instant>) -> io::Result<Option<TcpStream>> {
    let mut waiting = by_turns(addresses).into_iter();
    let mut begun: Vec<(SocketAddr, TcpStream)> = Vec::new();
    let mut failed = Vec::new();
    loop {
        match waiting.next().map(|address| (address, begin(&address))) {
            Some((address, Ok(socket))) => begun.push((address, socket)),
            // The next one gets its turn at once.
            Some((address, Err(error))) => {
                failed.push((address, error));
                continue;
            }
            None if begun.is_empty() => return Err(cause(failed)),
            None => {}
        }
        let turn = (waiting.len() > 0).then(|| Instant::now() + ALONE);
        let ready = wait(&begun, turn.into_iter().chain(end).min())?;
        for ((address, socket), ready) in mem::take(&mut begun).into_iter().zip(ready) {
            match ready.then(|| socket.take_error()) {
                None => begun.push((address, socket)),
                Some(Ok(None)) => return Ok(Some(socket)),
                Some(Ok(Some(error)) | Err(error)) => failed.push((address, error)),
            }
        }
        if end.is_some_and(|end| end <= Instant::now()) {
            return Ok(None);
        }
    }
}

/// The families by turns, beginning with that of the first address; those of a family as they were (RFC 8305, section 4).
fn by_turns(addresses: &[SocketAddr]) -> Vec<SocketAddr> {
    let first = addresses.first().map(SocketAddr::is_ipv4);
    let (same, other): (Vec<SocketAddr>, Vec<_>) =
        addresses.iter().partition(|address| Some(address.is_ipv4()) == first);
    let mut families = [same.into_iter(), other.into_iter()];
    let mut ordered = Vec::new();
    while ordered.len() < addresses.len() {
        for family in &mut families {
            ordered.extend(family.next());
        }
    }
    ordered
}

/// Begins to connect, and waits for nothing.
fn begin(address: &SocketAddr) -> io::Result<TcpStream> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let socket = socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK, None)?;
    match connect(&socket, address) {
        Ok(()) | Err(Errno::INPROGRESS) => Ok(socket.into()),
        Err(error) => Err(error.into()),
    }
}

/// Waits until one of them is connected or has failed, or until it is time; which ones are or have.
fn wait(begun: &[(SocketAddr, TcpStream)], until: Option<Instant>) -> io::Result<Vec<bool>> {
    let mut sockets: Vec<_> = begun.iter().map(|(_, socket)| PollFd::new(socket, PollFlags::OUT)).collect();
    loop {
        let left = until.map(|until| until.saturating_duration_since(Instant::now()));
        let left = left.map(Timespec::try_from).transpose().map_err(io::Error::other)?;
        match poll(&mut sockets, left.as_ref()) {
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
            Ok(_) => return Ok(sockets.iter().map(|socket| !socket.revents().is_empty()).collect()),
        }
    }
}

/// One error for all addresses: it has each cause once, and the kind of the one that tells most.
fn cause(failed: Vec<(SocketAddr, io::Error)>) -> io::Error {
    let mut causes: Vec<(SocketAddr, io::Error)> = Vec::new();
    for (address, error) in failed {
        if causes.iter().all(|(_, other)| other.raw_os_error() != error.raw_os_error()) {
            causes.push((address, error));
        }
    }
    let errors = || causes.iter().map(|(_, error)| error);
    // Who refuses is there, and what passes by itself may be there soon; the others are about the way.
    let refused = errors().find(|error| error.kind() == io::ErrorKind::ConnectionRefused);
    let kind = refused.or_else(|| errors().find(|error| is_temporary(error))).or(errors().next()).map(io::Error::kind);
    let text: Vec<String> = causes.iter().map(|(address, error)| format!("{address}: {error}")).collect();
    match causes.pop() {
        Some((_, error)) if causes.is_empty() => error,
        _ => io::Error::new(kind.unwrap_or(io::ErrorKind::NotFound), text.join("; ")),
    }
}

/// A connection as it comes from the kernel.
pub(super) struct Plain {
    socket: TcpStream,
    buffers: LazyBuffers,
    /// The time limits that are set.
    reads: Option<Duration>,
    writes: Option<Duration>,
}

impl std::fmt::Debug for Plain {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Plain").field(&self.socket).finish()
    }
}

impl Transport for Plain {
    fn buffers(&mut self) -> &mut dyn Buffers {
        &mut self.buffers
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), Error> {
        let timeout = timeout.for_write();
        limit(&mut self.writes, timeout, |limit| self.socket.set_write_timeout(limit))?;
        let output = self.buffers.output().get(..amount).unwrap_or_default();
        self.socket.write_all(output).map_err(|e| told(e, timeout))
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, Error> {
        let timeout = timeout.for_read();
        limit(&mut self.reads, timeout, |limit| self.socket.set_read_timeout(limit))?;
        let amount = loop {
            match self.socket.read(self.buffers.input_append_buf()) {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                result => break result.map_err(|e| told(e, timeout))?,
            }
        };
        self.buffers.input_appended(amount);
        Ok(amount > 0)
    }

    /// Whether the server neither closed it nor says what nobody asked for.
    fn is_open(&mut self) -> bool {
        let nothing = recv(&self.socket, &mut [0_u8; 1][..], RecvFlags::PEEK | RecvFlags::DONTWAIT);
        matches!(nothing, Err(Errno::AGAIN))
    }
}

/// Sets a time limit, if it is not the one that `known` says is set: that takes a system call.
fn limit(
    known: &mut Option<Duration>,
    timeout: NextTimeout,
    set: impl FnOnce(Option<Duration>) -> io::Result<()>,
) -> Result<(), Error> {
    if timeout.after.is_zero() {
        return Err(Error::Timeout(timeout.reason));
    }
    let wanted = timeout.not_zero().map(|limit| *limit);
    if wanted != *known {
        set(wanted)?;
        *known = wanted;
    }
    Ok(())
}

/// What the kernel calls an operation that would block is one that took too long.
fn told(error: io::Error, timeout: NextTimeout) -> Error {
    match error.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => Error::Timeout(timeout.reason),
        _ => error.into(),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::{net::TcpListener, thread};

    use rustix::net::{bind, listen};
    use ureq::{
        Agent,
        config::Config,
        http::Uri,
        unversioned::{
            resolver::{ResolvedSocketAddrs, Resolver},
            transport::ConnectProxyConnector,
        },
    };

    use super::*;

    /// Every name has these addresses.
    #[derive(Debug)]
    struct Addresses(Vec<SocketAddr>);

    impl Resolver for Addresses {
        fn resolve(&self, _: &Uri, _: &Config, _: NextTimeout) -> Result<ResolvedSocketAddrs, Error> {
            let mut found = self.empty();
            self.0.iter().for_each(|address| found.push(*address));
            Ok(found)
        }
    }

    /// Listens, and answers nobody: as many wait as may. Silent as long as what is returned is kept.
    fn silent() -> (SocketAddr, Vec<TcpStream>) {
        let address: SocketAddr = "127.0.0.2:0".parse().unwrap();
        let socket = socket_with(AddressFamily::INET, SocketType::STREAM, SocketFlags::CLOEXEC, None).unwrap();
        bind(&socket, &address).unwrap();
        listen(&socket, 0).unwrap();
        let listener = TcpListener::from(socket);
        let address = listener.local_addr().unwrap();
        let mut kept = vec![TcpStream::from(std::os::fd::OwnedFd::from(listener))];
        while let Ok(stream) = TcpStream::connect_timeout(&address, Duration::from_millis(50)) {
            kept.push(stream);
        }
        (address, kept)
    }

    /// Answers `body` to one request.
    fn answering(body: &'static str) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let _ = stream.read(&mut [0; 4096]);
            write!(stream, "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len()).unwrap();
        });
        address
    }

    /// Nobody listens there.
    fn refusing() -> SocketAddr {
        TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
    }

    fn get(addresses: &[SocketAddr], limit: Duration) -> Result<String, Error> {
        let config = Agent::config_builder().proxy(None).timeout_connect(Some(limit)).build();
        let connector = ConnectProxyConnector::default().chain(Tcp);
        let agent = Agent::with_parts(config, connector, Addresses(addresses.to_vec()));
        agent.get("http://registry.example/").call()?.body_mut().read_to_string()
    }

    #[test]
    fn an_address_that_swallows_everything_costs_little() {
        let (silent, _kept) = silent();
        let begin = Instant::now();
        let found = get(&[silent, silent, refusing(), answering("found")], Duration::from_secs(60)).unwrap();
        assert_eq!(found, "found");
        let passed = begin.elapsed();
        assert!(passed >= 2 * ALONE && passed < Duration::from_secs(10), "{passed:?}");
    }

    #[test]
    fn an_address_that_fails_costs_nothing() {
        // An address of one link alone, and no link named.
        let nowhere = "[fe80::1]:1".parse().unwrap();
        let begin = Instant::now();
        let found = get(&[nowhere, refusing(), refusing(), answering("found")], Duration::from_secs(60)).unwrap();
        assert_eq!(found, "found");
        assert!(begin.elapsed() < ALONE, "{:?}", begin.elapsed());
    }

    #[test]
    fn time_is_up_for_all_addresses_together() {
        let (silent, _kept) = silent();
        let begin = Instant::now();
        let error = get(&[silent, refusing(), silent], Duration::from_millis(400)).unwrap_err();
        assert!(matches!(error, Error::Timeout(ureq::Timeout::Connect)), "{error}");
        assert!(begin.elapsed() >= Duration::from_millis(400) && begin.elapsed() < Duration::from_secs(10));
    }

    #[test]
    fn where_all_fail_each_cause_is_told_once() {
        let address: SocketAddr = "192.0.2.1:443".parse().unwrap();
        let other: SocketAddr = "[2001:db8::1]:443".parse().unwrap();
        let error = io::Error::from;
        let of = |failed: &[(SocketAddr, Errno)]| cause(failed.iter().map(|(a, e)| (*a, error(*e))).collect());
        let one = of(&[(address, Errno::CONNREFUSED), (other, Errno::CONNREFUSED)]);
        assert_eq!(one.to_string(), "Connection refused (os error 111)");
        for (second, kind) in [
            (Errno::CONNREFUSED, io::ErrorKind::ConnectionRefused),
            (Errno::TIMEDOUT, io::ErrorKind::TimedOut),
            (Errno::HOSTUNREACH, io::ErrorKind::NetworkUnreachable),
        ] {
            let both = of(&[(other, Errno::NETUNREACH), (address, second), (other, Errno::NETUNREACH)]);
            let text =
                format!("[2001:db8::1]:443: Network is unreachable (os error 101); 192.0.2.1:443: {}", error(second));
            assert_eq!((both.kind(), both.to_string()), (kind, text));
        }
        let begin = Instant::now();
        let refused = get(&[refusing(), refusing()], Duration::from_secs(60)).unwrap_err();
        assert!(matches!(&refused, Error::Io(e) if e.kind() == io::ErrorKind::ConnectionRefused), "{refused}");
        assert!(begin.elapsed() < ALONE);
    }

    #[test]
    fn families_take_turns() {
        for (addresses, expected) in [
            ("", ""),
            ("a", "a"),
            ("a b c", "a b c"),
            ("A B C a b", "A a B b C"),
            ("a b c A", "a A b c"),
            ("A a B", "A a B"),
            ("a A B C", "a A B C"),
        ] {
            // A small letter is an address of IPv4, a capital one of IPv6.
            let parse = |letter: &str| -> SocketAddr {
                let port = letter.as_bytes()[0];
                let ip = if letter.to_lowercase() == letter { "127.0.0.1" } else { "[::1]" };
                format!("{ip}:{port}").parse().unwrap()
            };
            let list = |text: &str| text.split_whitespace().map(parse).collect::<Vec<_>>();
            assert_eq!(by_turns(&list(addresses)), list(expected), "{addresses}");
        }
    }
}
