//! A server that answers as the test says: with any answer, with faults, or with what the real server behind it
//! answers. One request per connection.

use std::{
    fmt::Write as _,
    io::{self, BufRead, BufReader, Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
};

/// One request, its body as far as it was read.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    pub method: String,
    /// With its query.
    pub path: String,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Seen {
    /// The value of a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }

    /// Whether the request has this method, and this text in its path.
    pub fn is(&self, method: &str, part: &str) -> bool {
        self.method == method && self.path.contains(part)
    }
}

/// What the server does with a request.
#[derive(Clone, Debug)]
pub enum Reply {
    /// This status, these headers, this body.
    Answer(u16, Vec<(&'static str, String)>, Vec<u8>),
    /// What the server behind it answers.
    Forward,
    /// The same, but the answer's body ends after so many bytes.
    ForwardTruncated(usize),
    /// The same, with a bit of the body's last byte changed.
    ForwardCorrupted,
    /// The connection is reset when so many bytes of the request's body were read.
    ResetAfter(usize),
    /// The server behind it gets the request, the client a closed connection.
    ForwardAndHangUp,
    /// Nothing, until the client gives up.
    Stall,
    /// What a proxy answers to CONNECT: a tunnel to the server behind it, whatever was asked for.
    Tunnel,
}

impl Reply {
    /// An answer without a body.
    pub fn status(status: u16) -> Self {
        Self::Answer(status, Vec::new(), Vec::new())
    }
}

type Handler = dyn Fn(&Seen) -> Reply + Send + Sync;

/// The running server; it takes no more connections after drop.
pub struct FaultServer {
    host: String,
    seen: Arc<Mutex<Vec<Seen>>>,
    stopped: Arc<AtomicBool>,
}

impl FaultServer {
    /// Starts it. `behind` is the host and port of the real server; `handler` sees a request before its body is read.
    pub fn start(behind: &str, handler: impl Fn(&Seen) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("bind a free port");
        let host = listener.local_addr().expect("the port").to_string();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let stopped = Arc::new(AtomicBool::new(false));
        let (log, stop, behind) = (seen.clone(), stopped.clone(), behind.to_string());
        let handler: Arc<Handler> = Arc::new(handler);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if stop.load(Ordering::SeqCst) {
                    return;
                }
                let (log, handler, behind) = (log.clone(), handler.clone(), behind.clone());
                std::thread::spawn(move || serve(&stream, &behind, &*handler, &log));
            }
        });
        Self { host, seen, stopped }
    }

    /// Host and port, as image names have them.
    pub fn host(&self) -> String {
        self.host.clone()
    }

    /// All requests so far.
    pub fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    /// How many requests there were with this method and this text in the path.
    pub fn count(&self, method: &str, part: &str) -> usize {
        self.seen().iter().filter(|s| s.is(method, part)).count()
    }
}

impl Drop for FaultServer {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(&self.host);
    }
}

fn serve(stream: &TcpStream, behind: &str, handler: &Handler, log: &Mutex<Vec<Seen>>) {
    let mut first = [0];
    // A client that tries TLS first gets a closed connection, as from a server that does not speak it.
    if !stream.peek(&mut first).is_ok_and(|n| n == 1 && first[0].is_ascii_alphabetic()) {
        return;
    }
    let mut reader = BufReader::new(stream);
    let Some(mut seen) = read_head(&mut reader) else { return };
    let reply = handler(&seen);
    match reply {
        Reply::ResetAfter(bytes) => {
            let mut part = vec![0; bytes];
            let _ = reader.read_exact(&mut part);
            seen.body = part;
            log.lock().unwrap().push(seen);
            // Bytes that were not read make the kernel reset the connection.
            return;
        }
        Reply::Stall => {
            log.lock().unwrap().push(seen);
            let _ = reader.read_to_end(&mut Vec::new());
            return;
        }
        Reply::Tunnel => {
            log.lock().unwrap().push(seen);
            tunnel(stream, behind);
            return;
        }
        _ => {}
    }
    seen.body = read_body(&mut reader, &seen);
    log.lock().unwrap().push(seen.clone());
    let mut stream = stream;
    if let Some(answer) = answer(reply, &seen, behind) {
        let _ = stream.write_all(&answer);
        let _ = stream.shutdown(Shutdown::Write);
    }
}

/// What the client gets for a request that was read whole.
fn answer(reply: Reply, seen: &Seen, behind: &str) -> Option<Vec<u8>> {
    if let Reply::Answer(status, headers, body) = reply {
        let mut head = format!("HTTP/1.1 {status} Status\r\nConnection: close\r\nContent-Length: {}\r\n", body.len());
        for (name, value) in headers {
            let _ = write!(head, "{name}: {value}\r\n");
        }
        let mut bytes = format!("{head}\r\n").into_bytes();
        if seen.method != "HEAD" {
            bytes.extend(body);
        }
        return Some(bytes);
    }
    let mut bytes = forward(seen, behind);
    match reply {
        Reply::ForwardTruncated(keep) => {
            let body = bytes.windows(4).position(|w| w == b"\r\n\r\n").map_or(bytes.len(), |at| at + 4);
            bytes.truncate(body + keep);
        }
        Reply::ForwardCorrupted => {
            if let Some(last) = bytes.last_mut() {
                *last ^= 1;
            }
        }
        Reply::ForwardAndHangUp => return None,
        _ => {}
    }
    Some(bytes)
}

fn read_head(reader: &mut impl BufRead) -> Option<Seen> {
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).ok()? == 0 {
            return None;
        }
        match line.trim_end() {
            "" => break,
            text => lines.push(text.to_string()),
        }
    }
    let mut words = lines.first()?.split(' ');
    let (method, path) = (words.next()?.to_string(), words.next()?.to_string());
    let header = |line: &String| line.split_once(':').map(|(n, v)| (n.to_lowercase(), v.trim().to_string()));
    Some(Seen { method, path, headers: lines.iter().skip(1).filter_map(header).collect(), body: Vec::new() })
}

fn read_body(reader: &mut impl BufRead, seen: &Seen) -> Vec<u8> {
    let mut body = Vec::new();
    if seen.header("transfer-encoding").is_some_and(|v| v.contains("chunked")) {
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line).is_err() {
                return body;
            }
            let size = usize::from_str_radix(line.trim(), 16).unwrap_or(0);
            let mut chunk = vec![0; size + 2];
            if reader.read_exact(&mut chunk).is_err() || size == 0 {
                return body;
            }
            body.extend_from_slice(&chunk[..size]);
        }
    }
    let length = seen.header("content-length").and_then(|v| v.parse().ok()).unwrap_or(0);
    let _ = reader.take(length).read_to_end(&mut body);
    body
}

fn tunnel(mut client: &TcpStream, behind: &str) {
    let server = TcpStream::connect(behind).expect("connect to the server behind");
    if client.write_all(b"HTTP/1.1 200 Connected\r\n\r\n").is_err() {
        return;
    }
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let _ = io::copy(&mut &*client, &mut &server);
            let _ = server.shutdown(Shutdown::Write);
        });
        let _ = io::copy(&mut &server, &mut &*client);
        let _ = client.shutdown(Shutdown::Write);
    });
}

/// Sends the request on; the whole answer, head and all.
fn forward(seen: &Seen, behind: &str) -> Vec<u8> {
    let mut request = format!("{} {} HTTP/1.1\r\nConnection: close\r\n", seen.method, seen.path);
    for (name, value) in &seen.headers {
        if !["connection", "transfer-encoding", "content-length"].contains(&name.as_str()) {
            let _ = write!(request, "{name}: {value}\r\n");
        }
    }
    let _ = write!(request, "content-length: {}\r\n\r\n", seen.body.len());
    let mut answer = Vec::new();
    let mut stream = TcpStream::connect(behind).expect("connect to the server behind");
    stream.write_all(request.as_bytes()).and_then(|()| stream.write_all(&seen.body)).expect("forward");
    let _ = stream.read_to_end(&mut answer);
    answer
}
