//! What a certificate says of itself (RFC 5280, section 4), as far as rustls keeps it to itself.

const BOOLEAN: u8 = 0x01;
const INTEGER: u8 = 0x02;
const SEQUENCE: u8 = 0x30;
/// The field that has the version, where it is not the first one.
const VERSION: u8 = 0xa0;
/// The field that has the extensions.
const EXTENSIONS: u8 = 0xa3;

/// Extensions: what the key may be used for, whether that is to sign certificates, and for which purposes (sections
/// 4.2.1.3, 4.2.1.9 and 4.2.1.12).
const USAGES: [u8; 3] = [0x55, 0x1d, 15];
const CONSTRAINTS: [u8; 3] = [0x55, 0x1d, 19];
const PURPOSES: [u8; 3] = [0x55, 0x1d, 37];

const FOR_SERVERS: [u8; 8] = [0x2b, 6, 1, 5, 5, 7, 3, 1];
const FOR_ANYTHING: [u8; 4] = [0x55, 0x1d, 37, 0];
/// The bit of the usages, in the first of their bytes, that lets a key sign certificates.
const SIGNS_CERTIFICATES: u8 = 0x04;

/// Whether a certificate may sign others: those of version 1 do not say, all others have to. `None`: it cannot be read.
pub(super) fn may_sign(certificate: &[u8]) -> Option<bool> {
    let Some(constraints) = extension(certificate, CONSTRAINTS)? else {
        let (_, certificate, _) = element(certificate)?;
        let (_, fields, _) = element(certificate)?;
        return Some(element(fields)?.0 != VERSION);
    };
    let (_, constraints, _) = element(constraints)?;
    let is_authority = matches!(element(constraints), Some((BOOLEAN, [yes], _)) if *yes != 0);
    let signs = match extension(certificate, USAGES)? {
        // Before the bits is how many of the last byte's do not count.
        Some(usages) => element(usages)?.1.get(1).is_some_and(|bits| bits & SIGNS_CERTIFICATES != 0),
        None => true,
    };
    Some(is_authority && signs)
}

/// Whether a certificate is for servers, as far as it says what it is for; `None`: it cannot be read.
pub(super) fn is_for_servers(certificate: &[u8]) -> Option<bool> {
    let Some(purposes) = extension(certificate, PURPOSES)? else { return Some(true) };
    let (_, mut purposes, _) = element(purposes)?;
    while !purposes.is_empty() {
        let (_, purpose, rest) = element(purposes)?;
        purposes = rest;
        if purpose == FOR_SERVERS || purpose == FOR_ANYTHING {
            return Some(true);
        }
    }
    Some(false)
}

/// The value of an extension, if the certificate has it; `None`: it cannot be read.
#[allow(clippy::option_option, reason = "what is not there is something else than what cannot be read")]
fn extension(certificate: &[u8], wanted: [u8; 3]) -> Option<Option<&[u8]>> {
    let (_, certificate, _) = element(certificate)?;
    let (_, mut fields, _) = element(certificate)?;
    let mut extensions: &[u8] = &[];
    while !fields.is_empty() {
        let (tag, content, rest) = element(fields)?;
        fields = rest;
        if tag == EXTENSIONS {
            extensions = element(content)?.1;
        }
    }
    while !extensions.is_empty() {
        let (_, extension, rest) = element(extensions)?;
        extensions = rest;
        let (_, id, value) = element(extension)?;
        if id == wanted {
            // Whether it is critical may stand before it.
            let (tag, content, rest) = element(value)?;
            return Some(Some(if tag == BOOLEAN { element(rest)?.1 } else { content }));
        }
    }
    Some(None)
}

/// The issuer of a certificate (section 4.1), such as `O=Acme, CN=Acme Root`.
pub(super) fn issuer(certificate: &[u8]) -> Option<String> {
    let (_, certificate, _) = element(certificate)?;
    let (_, mut rest, _) = element(certificate)?;
    // version (may be absent), serialNumber, signature, issuer
    loop {
        let (tag, content, after) = element(rest)?;
        rest = after;
        if tag == INTEGER {
            break;
        }
        // The version is an integer within another element.
        element(content)?;
    }
    let (_, _, rest) = element(rest)?;
    let (tag, mut names, _) = element(rest)?;
    let mut parts = Vec::new();
    while let Some((_, set, after)) = element(names) {
        names = after;
        let (_, pair, _) = element(set)?;
        let (_, key, value) = element(pair)?;
        let (_, value, _) = element(value)?;
        if let Some(label) = label(key) {
            let text: String = String::from_utf8_lossy(value).chars().filter(|c| !c.is_control()).collect();
            parts.push(format!("{label}={text}"));
        }
    }
    (tag == SEQUENCE && !parts.is_empty()).then(|| parts.join(", "))
}

/// What the attribute types of a name are called.
fn label(key: &[u8]) -> Option<&'static str> {
    match key {
        [0x55, 0x04, 3] => Some("CN"),
        [0x55, 0x04, 6] => Some("C"),
        [0x55, 0x04, 10] => Some("O"),
        [0x55, 0x04, 11] => Some("OU"),
        _ => None,
    }
}

/// Tag and content of the DER element at the beginning, and what follows it.
fn element(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&tag, rest) = bytes.split_first()?;
    let (&first, rest) = rest.split_first()?;
    let (length, rest) = if first < 0x80 {
        (usize::from(first), rest)
    } else {
        let (digits, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
        (digits.iter().try_fold(0_usize, |n, byte| n.checked_mul(256)?.checked_add(usize::from(*byte)))?, rest)
    };
    let (content, rest) = rest.split_at_checked(length)?;
    Some((tag, content, rest))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn der(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
        let content = parts.concat();
        [&[tag, 0x81, u8::try_from(content.len()).unwrap()], &content[..]].concat()
    }

    fn name(key: &[u8], text: &str) -> Vec<u8> {
        der(0x31, &[&der(SEQUENCE, &[&der(6, &[key]), &der(12, &[text.as_bytes()])])])
    }

    #[test]
    fn the_issuer_of_a_certificate() {
        let names = der(
            SEQUENCE,
            &[&name(&[0x55, 4, 10], "Acme"), &name(&[0x55, 4, 99], "left out"), &name(&[0x55, 4, 3], "Acme\n Root")],
        );
        let version = der(0xa0, &[&der(INTEGER, &[&[2]])]);
        let body = [der(INTEGER, &[&[1, 2]]), der(SEQUENCE, &[]), names].concat();
        for head in [version, Vec::new()] {
            let certificate = der(SEQUENCE, &[&der(SEQUENCE, &[&head, &body])]);
            assert_eq!(issuer(&certificate).as_deref(), Some("O=Acme, CN=Acme Root"));
            // Cut anywhere, it is no certificate.
            assert!((0..certificate.len()).all(|end| issuer(&certificate[..end]).is_none()));
        }
        assert_eq!(issuer(&[0x30, 0xff]), None);
    }

    #[test]
    fn who_may_sign_certificates() {
        let version = der(VERSION, &[&der(INTEGER, &[&[2]])]);
        let critical = der(BOOLEAN, &[&[0xff]]);
        let extension =
            |id: [u8; 3], critical: &[u8], value: &[u8]| der(SEQUENCE, &[&der(6, &[&id]), critical, &der(4, &[value])]);
        let yes =
            extension(CONSTRAINTS, &critical, &der(SEQUENCE, &[&der(BOOLEAN, &[&[0xff]]), &der(INTEGER, &[&[0]])]));
        let no = extension(CONSTRAINTS, &[], &der(SEQUENCE, &[]));
        let usages = |bits: &[u8]| extension(USAGES, &critical, &der(3, &[bits]));
        let other = extension([0x55, 0x1d, 14], &[], &der(4, &[&[1]]));
        for (what, version, extensions, may) in [
            ("version 1", &[][..], vec![], true),
            ("nothing said", &version[..], vec![], false),
            ("nothing said of it", &version[..], vec![other.clone()], false),
            ("an authority", &version[..], vec![other.clone(), yes.clone()], true),
            ("none", &version[..], vec![no.clone(), other.clone()], false),
            ("an authority that signs", &version[..], vec![yes.clone(), usages(&[1, 0x06])], true),
            ("an authority that signs, many usages", &version[..], vec![usages(&[7, 0xff, 0x80]), yes.clone()], true),
            ("an authority that signs no certificates", &version[..], vec![yes.clone(), usages(&[1, 0x82])], false),
            ("usages that say nothing", &version[..], vec![yes, usages(&[0])], false),
            ("a server that says it signs", &version[..], vec![no, usages(&[1, 0x06])], false),
        ] {
            let extensions = der(EXTENSIONS, &[&der(SEQUENCE, &[&extensions.concat()])]);
            let fields = [version, &der(INTEGER, &[&[1]]), &der(SEQUENCE, &[]), &extensions].concat();
            let certificate = der(SEQUENCE, &[&der(SEQUENCE, &[&fields])]);
            assert_eq!(may_sign(&certificate), Some(may), "{what}");
            assert!((0..certificate.len()).all(|end| may_sign(&certificate[..end]).is_none()), "{what}, cut");
        }
    }
}
