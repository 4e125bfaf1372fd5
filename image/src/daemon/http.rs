//! HTTP/1.1 over one connection, as far as Docker's Engine API needs it.
//!
//! Why not ureq: it reads a request's body from a reader, and the tar of an image is written, by recipes, so each load
//! would take a thread and a pipe; and it drops an answer that comes before the body's end, which is how a daemon says
//! what is wrong with an image. It could not keep connections for a process that may not open new ones, either.

use std::{
    io::{self, BufRead as _, BufReader, Read, Write},
    time::Duration,
};

use super::{chunks::Chunks, host::Stream};
use crate::{Error, Result};

/// Where the body of a request goes.
pub(super) type Body<'a> = &'a mut dyn FnMut(&mut dyn Write) -> Result<()>;

/// How long the daemon may take for an answer that it has not to work for.
const PATIENCE: Duration = Duration::from_secs(300);
/// No daemon's answer has longer headers.
const MAX_HEAD: u64 = 64 << 10;
/// What is left of an answer may be read away, up to here, to use the connection again.
const MAX_REST: u64 = 1 << 20;

/// A connection, between two requests.
#[derive(Debug)]
pub(super) struct Connection {
    stream: BufReader<Stream>,
    /// It was used before: the daemon may have closed it since.
    pub(super) used: bool,
}

/// What is asked.
#[derive(Clone, Copy, Debug)]
pub(super) struct Request<'a> {
    pub(super) method: &'static str,
    /// Path and query.
    pub(super) target: &'a str,
    /// Value of the header `Host`.
    pub(super) host: &'a str,
    /// The daemon works before it answers: wait as long as it takes.
    pub(super) patient: bool,
}

/// Why there is no answer.
pub(super) enum Failure {
    /// The connection broke before any answer: the request may be tried on another one if it has no effects.
    Broken(io::Error),
    /// The body could not be made.
    Body(Error),
}

/// Names are in lower case.
type Headers = Vec<(String, String)>;

/// An answer, of whatever status; its body is read from it.
pub(super) struct Answer<'c> {
    connection: &'c mut Connection,
    pub(super) status: u16,
    headers: Headers,
    framing: Framing,
    /// The connection cannot be used again.
    close: bool,
}

enum Framing {
    /// So many bytes are left.
    Length(u64),
    /// So many bytes of this chunk are left; `None` before the first.
    Chunked(Option<u64>),
    UntilClosed,
}

impl Connection {
    pub(super) fn new(stream: Stream) -> Self {
        Self { stream: BufReader::new(stream), used: false }
    }

    pub(super) fn is_open(&mut self) -> bool {
        self.stream.buffer().is_empty() && self.stream.get_mut().is_open()
    }

    /// Sends a request and reads the head of the answer.
    pub(super) fn send(
        &mut self,
        request: &Request<'_>,
        body: Option<Body<'_>>,
    ) -> std::result::Result<Answer<'_>, Failure> {
        self.used = true;
        let stream = self.stream.get_mut();
        stream.set_patience(Some(PATIENCE).filter(|_| !request.patient)).map_err(Failure::Broken)?;
        let mut head = format!("{} {} HTTP/1.1\r\nHost: {}\r\n", request.method, request.target, request.host);
        head.push_str("User-Agent: cnb-lifecycle\r\n");
        match (&body, request.method) {
            (Some(_), _) => head.push_str("Content-Type: application/x-tar\r\nTransfer-Encoding: chunked\r\n"),
            (None, "POST") => head.push_str("Content-Length: 0\r\n"),
            (None, _) => {}
        }
        head.push_str("\r\n");
        stream.write_all(head.as_bytes()).map_err(Failure::Broken)?;
        let mut broken = None;
        if let Some(body) = body {
            let mut chunks = Chunks::new(stream);
            let sent = body(&mut chunks).and_then(|()| chunks.end().map_err(|e| Error::Remote(e.to_string())));
            broken = chunks.broken;
            if let (Err(error), None) = (sent, &broken) {
                return Err(Failure::Body(error));
            }
        }
        // A daemon may have hung up because it has said already what is wrong.
        let answer = self.answer(request.method, broken.is_some());
        answer.map_err(|e| Failure::Broken(broken.unwrap_or(e)))
    }

    fn answer(&mut self, method: &str, close: bool) -> io::Result<Answer<'_>> {
        self.stream.get_mut().flush().or_else(|e| if close { Ok(()) } else { Err(e) })?;
        let (version, status, headers) = loop {
            let head = self.read_head()?;
            if head.1 >= 200 {
                break head;
            }
        };
        let find = |name: &str| headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str());
        let chunked = find("transfer-encoding").is_some_and(|value| value.eq_ignore_ascii_case("chunked"));
        let framing = if method == "HEAD" || matches!(status, 204 | 304) {
            Framing::Length(0)
        } else if chunked {
            Framing::Chunked(None)
        } else if let Some(length) = find("content-length") {
            Framing::Length(length.parse().map_err(|_| malformed())?)
        } else {
            Framing::UntilClosed
        };
        let close = close
            || version != "HTTP/1.1"
            || matches!(framing, Framing::UntilClosed)
            || find("connection").is_some_and(|value| value.eq_ignore_ascii_case("close"));
        Ok(Answer { connection: self, status, headers, framing, close })
    }

    /// Version, status and headers.
    fn read_head(&mut self) -> io::Result<(String, u16, Headers)> {
        let mut limited = (&mut self.stream).take(MAX_HEAD);
        let mut line = || -> io::Result<String> {
            let mut line = Vec::new();
            limited.read_until(b'\n', &mut line)?;
            if line.pop() != Some(b'\n') {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            Ok(String::from_utf8_lossy(&line).trim_end_matches('\r').to_owned())
        };
        let first = line()?;
        let mut words = first.splitn(3, ' ');
        let version = words.next().filter(|word| word.starts_with("HTTP/1.")).ok_or_else(malformed)?;
        let status = words.next().and_then(|word| word.parse().ok()).ok_or_else(malformed)?;
        let mut headers = Vec::new();
        loop {
            let line = line()?;
            if line.is_empty() {
                return Ok((version.to_owned(), status, headers));
            }
            let (name, value) = line.split_once(':').ok_or_else(malformed)?;
            headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
    }
}

fn malformed() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "malformed HTTP answer")
}

impl Answer<'_> {
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// The body, which must not be longer than this.
    pub(super) fn read_all(&mut self, limit: u64) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        self.take(limit + 1).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > limit {
            return Err(io::Error::other(format!("the answer is longer than {limit} bytes")));
        }
        Ok(bytes)
    }

    /// Whether the connection can be used again, what is left of the answer thrown away.
    pub(super) fn finish(mut self) -> bool {
        let rest = io::copy(&mut (&mut self).take(MAX_REST), &mut io::sink());
        !self.close && rest.is_ok_and(|n| n < MAX_REST)
    }

    fn next_chunk(&mut self, first: bool) -> io::Result<u64> {
        let stream = &mut self.connection.stream;
        let mut line = String::new();
        if !first {
            stream.take(2).read_line(&mut line)?;
            line.clear();
        }
        stream.take(1024).read_line(&mut line)?;
        let size = line.split(';').next().unwrap_or_default().trim();
        let size = u64::from_str_radix(size, 16).map_err(|_| malformed())?;
        if size == 0 {
            // Trailers, which nobody sends, and the empty line.
            loop {
                line.clear();
                if stream.take(MAX_HEAD).read_line(&mut line)? <= 2 {
                    break;
                }
            }
        }
        Ok(size)
    }
}

impl Read for Answer<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if let Framing::Chunked(left @ (None | Some(0))) = self.framing {
            let size = self.next_chunk(left.is_none())?;
            self.framing = if size == 0 { Framing::Length(0) } else { Framing::Chunked(Some(size)) };
        }
        let (Framing::Length(left) | Framing::Chunked(Some(left))) = &mut self.framing else {
            return self.connection.stream.read(out);
        };
        if *left == 0 || out.is_empty() {
            return Ok(0);
        }
        let most = usize::try_from(*left).map_or(out.len(), |left| left.min(out.len()));
        let n = self.connection.stream.read(out.get_mut(..most).unwrap_or_default())?;
        if n == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        *left -= n as u64;
        Ok(n)
    }
}

#[cfg(test)]
mod tests {
    use std::{os::unix::net::UnixStream, thread};

    use super::{super::chunks::GATHER, *};

    /// Answers to one request after another, each written as soon as its request's head has come.
    fn serve(answers: &'static [&'static str]) -> (Connection, thread::JoinHandle<String>) {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let server = thread::spawn(move || {
            let mut heard = Vec::new();
            for answer in answers {
                let start = heard.len();
                while !heard[start..].windows(4).any(|w| w == b"\r\n\r\n") {
                    let mut byte = [0];
                    if theirs.read(&mut byte).unwrap_or(0) == 0 {
                        return String::from_utf8(heard).unwrap();
                    }
                    heard.push(byte[0]);
                }
                theirs.write_all(answer.as_bytes()).unwrap();
            }
            // The client may have gone by now.
            let _ = theirs.shutdown(std::net::Shutdown::Write);
            theirs.read_to_end(&mut heard).unwrap();
            String::from_utf8(heard).unwrap()
        });
        (Connection::new(Stream::Unix(ours)), server)
    }

    const GET: Request<'_> = Request { method: "GET", target: "/x", host: "docker", patient: false };

    fn get(connection: &mut Connection) -> (u16, String, bool) {
        let Ok(mut answer) = connection.send(&GET, None) else { panic!("no answer") };
        let body = String::from_utf8(answer.read_all(100).unwrap()).unwrap();
        (answer.status, body, answer.finish())
    }

    #[test]
    fn answers_of_every_framing() {
        let (mut connection, server) = serve(&[
            "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nab",
            "HTTP/1.1 404 Not Found\r\ntransfer-encoding: Chunked\r\n\r\n3\r\nabc\r\nA;x=y\r\n0123456789\r\n0\r\n\r\n",
            "HTTP/1.1 204 No Content\r\n\r\n",
            "HTTP/1.1 200 OK\r\n\r\nuntil the end",
        ]);
        assert_eq!(get(&mut connection), (200, "ab".to_owned(), true));
        assert_eq!(get(&mut connection), (404, "abc0123456789".to_owned(), true));
        assert_eq!(get(&mut connection), (204, String::new(), true));
        assert_eq!(get(&mut connection), (200, "until the end".to_owned(), false));
        assert!(!connection.is_open());
        drop(connection);
        assert_eq!(server.join().unwrap().matches("GET /x HTTP/1.1\r\nHost: docker\r\n").count(), 4);
    }

    #[test]
    fn a_body_goes_out_in_chunks() {
        let (mut connection, server) = serve(&["HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"]);
        let large = vec![b'x'; GATHER];
        let mut body = |out: &mut dyn Write| {
            out.write_all(b"small").and_then(|()| out.write_all(&large)).map_err(|e| Error::Io(e.to_string()))
        };
        let request = Request { method: "POST", ..GET };
        assert!(connection.send(&request, Some(&mut body)).is_ok_and(Answer::finish));
        drop(connection);
        let all = server.join().unwrap();
        let (head, sent) = all.split_once("\r\n\r\n").unwrap();
        assert!(head.contains("Transfer-Encoding: chunked"));
        assert_eq!(sent, format!("5\r\nsmall\r\n10000\r\n{}\r\n0\r\n\r\n", "x".repeat(GATHER)));
    }

    #[test]
    fn an_answer_may_come_before_the_end_of_the_body() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        theirs.write_all(b"HTTP/1.1 500 No\r\nContent-Length: 4\r\n\r\nfull").unwrap();
        drop(theirs);
        let mut connection = Connection::new(Stream::Unix(ours));
        let mut body = |out: &mut dyn Write| loop {
            out.write_all(&vec![0; GATHER + 1]).map_err(|e| Error::Io(e.to_string()))?;
        };
        let request = Request { method: "POST", ..GET };
        // The head is refused already: only where it got through is there an answer to look for.
        let Err(Failure::Broken(_)) = connection.send(&request, Some(&mut body)) else { panic!("sent") };

        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let daemon = thread::spawn(move || {
            theirs.read_exact(&mut [0; 8]).unwrap();
            theirs.write_all(b"HTTP/1.1 500 No\r\nContent-Length: 4\r\n\r\nfull").unwrap();
        });
        let mut connection = Connection::new(Stream::Unix(ours));
        let Ok(mut answer) = connection.send(&request, Some(&mut body)) else { panic!("no answer") };
        assert_eq!((answer.status, answer.read_all(9).unwrap()), (500, b"full".to_vec()));
        assert!(!answer.finish());
        daemon.join().unwrap();
    }

    #[test]
    fn what_fails_to_be_made_is_told_from_what_fails_to_be_sent() {
        let (mut connection, _server) = serve(&["HTTP/1.1 200 OK\r\n\r\n"]);
        let mut body = |_: &mut dyn Write| Err(Error::Io("read /x: gone".to_owned()));
        let Err(Failure::Body(Error::Io(text))) = connection.send(&GET, Some(&mut body)) else { panic!("sent") };
        assert_eq!(text, "read /x: gone");
    }

    #[test]
    fn a_cut_answer_is_an_error() {
        for cut in ["", "HTTP/1.1 200", "HTTP/1.1 200 OK\r\nContent-Le", "SSH-2.0-x\r\n\r\n"] {
            let (ours, mut theirs) = UnixStream::pair().unwrap();
            let mut connection = Connection::new(Stream::Unix(ours));
            theirs.write_all(cut.as_bytes()).unwrap();
            theirs.shutdown(std::net::Shutdown::Write).unwrap();
            assert!(connection.send(&GET, None).is_err(), "{cut}");
        }
        let (mut connection, _server) = serve(&["HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nab"]);
        let Ok(mut answer) = connection.send(&GET, None) else { panic!("no answer") };
        assert!(answer.read_all(100).is_err());
    }
}
