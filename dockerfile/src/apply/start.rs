//! What `EXPOSE` and `STOPSIGNAL` may say; engines refuse to start a container with anything else.

use crate::{Error, Result};

/// `[[<address>:]<port of the machine>:]<port>[-<port>][/<protocol>]` as the names in an image's config.
///
/// # Errors
/// It is no port.
pub(super) fn ports(text: &str) -> Result<Vec<String>> {
    let wrong = || Error::new(format!("invalid port: {text}"));
    let (numbers, protocol) = text.split_once('/').unwrap_or((text, ""));
    let protocol = if protocol.is_empty() { "tcp".to_owned() } else { protocol.to_ascii_lowercase() };
    if !["tcp", "udp", "sctp"].contains(&protocol.as_str()) {
        return Err(Error::new(format!("invalid protocol: {protocol}")));
    }
    // Where the machine publishes it is for those who start containers to say.
    let numbers = numbers.rsplit(':').next().unwrap_or_default();
    let (first, last) = numbers.split_once('-').unwrap_or((numbers, numbers));
    let number = |text: &str| text.parse::<u16>().map_err(|_| wrong());
    let (first, last) = (number(first)?, number(last)?);
    if first > last {
        return Err(wrong());
    }
    Ok((first..=last).map(|port| format!("{port}/{protocol}")).collect())
}

/// A number, or a name with or without `SIG`.
///
/// # Errors
/// It is no signal.
pub(super) fn check_signal(text: &str) -> Result<()> {
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    let real_time = name.strip_prefix("RTMIN+").or_else(|| name.strip_prefix("RTMAX-"));
    let known = match text.parse::<i32>() {
        Ok(number) => number != 0,
        Err(_) => {
            ["RTMIN", "RTMAX"].contains(&name)
                || real_time.is_some_and(|n| n.parse::<u8>().is_ok_and(|n| n <= 30))
                || format!("SIG{name}").parse::<nix::sys::signal::Signal>().is_ok()
        }
    };
    if known { Ok(()) } else { Err(Error::new(format!("invalid signal: {text}"))) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_and_ranges() {
        for (text, expected) in [
            ("80", &["80/tcp"][..]),
            ("0", &["0/tcp"]),
            ("5/TCP", &["5/tcp"]),
            ("5/sctp", &["5/sctp"]),
            ("1000-1002/udp", &["1000/udp", "1001/udp", "1002/udp"]),
            ("127.0.0.1:80:90", &["90/tcp"]),
            ("1-2:3-4", &["3/tcp", "4/tcp"]),
        ] {
            assert_eq!(ports(text).unwrap(), expected, "{text}");
        }
        for text in ["", "x", "90-80", "65536", "-1", "80:", "80/icmp", "80-", "1.5"] {
            assert!(ports(text).is_err(), "{text}");
        }
    }

    #[test]
    fn signals() {
        for text in ["TERM", "sigquit", "9", "99", "-1", "RTMIN", "SIGRTMAX-2", "rtmin+15"] {
            assert!(check_signal(text).is_ok(), "{text}");
        }
        for text in ["", "0", "NOPE", "SIG", "SIGSIGTERM", "RTMIN+x", "RTMAX+1"] {
            assert!(check_signal(text).is_err(), "{text}");
        }
    }
}
