//! Files from anywhere on the web, by their URL: with the connections, time limits and retries that registries have.

use std::{fs::File, io, path::Path};

use ureq::http::{Method, Uri, header};

use super::{
    Settings,
    failure::{Attempt, Failure, content_error, stay_encrypted},
    http::{Body, Http, MAX_REDIRECTS, Patience, Request},
    retry,
    url::{parse, shown},
};
use crate::{Error, Result};

/// What came with a file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Downloaded {
    /// The last part of the URL's path; empty where that ends with `/`.
    pub name: String,
    /// `Last-Modified`, as the server wrote it.
    pub modified: Option<String>,
}

/// Fetches what is at this URL into the file `to`, which is made anew.
///
/// # Errors
/// It cannot be had whole, or `to` cannot be written.
pub fn download(url: &str, to: &Path, settings: &Settings) -> Result<Downloaded> {
    let http = Http::new();
    let url = parse(url)?;
    let modified = retry(settings, || attempt(&http, settings, &url, to))?;
    let name = url.path().rsplit('/').next().unwrap_or_default().to_owned();
    Ok(Downloaded { name, modified })
}

/// Once, redirects followed.
fn attempt(http: &Http, settings: &Settings, url: &Uri, to: &Path) -> Attempt<Option<String>> {
    let mut url = url.clone();
    for _ in 0..MAX_REDIRECTS {
        let headers = [("accept", "*/*")];
        let (method, patience) = (Method::GET, Patience::Normal);
        let request = Request { method, url: &url, insecure: false, headers: &headers, patience };
        let mut answer = http.run(settings, &request, Body::None)?;
        if answer.status.is_success() {
            let at = |e: io::Error| Failure::lasting(Error::Io(format!("write {}: {e}", to.display())));
            let mut file = File::create(to).map_err(at)?;
            receive(&mut answer.body, &mut file, &url)?;
            return Ok(answer.header(header::LAST_MODIFIED).map(str::to_owned));
        }
        match answer.location().filter(|_| answer.status.is_redirection()) {
            Some(next) => {
                stay_encrypted(&Method::GET, &url, &next)?;
                answer.finish();
                url = next;
            }
            None => return Err(answer.into_failure()),
        }
    }
    Err(Failure::too_many_redirects(&Method::GET, &url))
}

/// Tells a connection that broke, which may do better the next time, from a disk that is full.
fn receive(body: &mut dyn io::Read, file: &mut File, url: &Uri) -> Attempt<()> {
    let mut buffer = vec![0; 128 << 10];
    loop {
        let n = match body.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(n) => n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            Err(e) => return Err(Failure::temporary(Error::Remote(format!("GET {}: {e}", shown(url))))),
        };
        io::Write::write_all(file, buffer.get(..n).unwrap_or_default())
            .map_err(|e| Failure::lasting(content_error(e)))?;
    }
}
