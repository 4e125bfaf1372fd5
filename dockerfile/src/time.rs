//! Points in time as images and web servers write them.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Days since 1970-01-01 of a day of the Gregorian calendar. Years begin in March here, so that the leap day is the last.
fn days(year: i64, month: i64, day: i64) -> i64 {
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    365 * year + year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400) + (153 * month + 2) / 5 + day
        - 719_469
}

fn at(date: (i64, i64, i64), clock: &str) -> Option<SystemTime> {
    let (year, month, day) = date;
    let mut parts = clock.splitn(3, ':').map(|part| part.parse::<i64>().ok());
    let (hour, minute, second) = (parts.next()??, parts.next()??, parts.next()??);
    let fits = (1..=12).contains(&month) && (1..=31).contains(&day) && (0..24).contains(&hour);
    let seconds = days(year, month, day) * 86_400 + hour * 3_600 + minute * 60 + second;
    let seconds = u64::try_from(seconds).ok().filter(|_| fits)?;
    Some(UNIX_EPOCH + Duration::from_secs(seconds))
}

/// `2006-01-02T15:04:05Z`, parts of seconds left out. Other zones are not what we write.
pub(crate) fn from_rfc3339(text: &str) -> Option<SystemTime> {
    let (date, clock) = text.strip_suffix('Z')?.split_once('T')?;
    let mut parts = date.splitn(3, '-').map(|part| part.parse::<i64>().ok());
    let date = (parts.next()??, parts.next()??, parts.next()??);
    at(date, clock.split('.').next().unwrap_or_default())
}

/// To the second.
pub(crate) fn to_rfc3339(time: SystemTime) -> String {
    let seconds = time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let (day, second) = (i64::try_from(seconds / 86_400).unwrap_or_default(), seconds % 86_400);
    let last = |from: i64, to: i64, begins: &dyn Fn(i64) -> i64| (from..=to).rev().find(|n| begins(*n) <= day);
    let guess = 1970 + day / 366;
    let year = last(guess, guess + 2 + day / 100_000, &|year| days(year, 1, 1)).unwrap_or(1970);
    let month = last(1, 12, &|month| days(year, month, 1)).unwrap_or(1);
    let day = day - days(year, month, 1) + 1;
    format!("{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z", second / 3_600, second / 60 % 60, second % 60)
}

/// `Sun, 06 Nov 1994 08:49:37 GMT`
pub(crate) fn from_http_date(text: &str) -> Option<SystemTime> {
    const MONTHS: &str = "JanFebMarAprMayJunJulAugSepOctNovDec";
    let mut parts = text.split_once(", ")?.1.split(' ');
    let day = parts.next()?.parse().ok()?;
    let month = MONTHS.find(parts.next().filter(|name| name.len() == 3)?)? / 3 + 1;
    let year = parts.next()?.parse().ok()?;
    at((year, i64::try_from(month).ok()?, day), parts.next()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_as_they_are_written() {
        for (epoch, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_399, "2000-02-28T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_709_164_800, "2024-02-29T00:00:00Z"),
            (1_767_225_599, "2025-12-31T23:59:59Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
            (32_503_680_000, "3000-01-01T00:00:00Z"),
        ] {
            let time = UNIX_EPOCH + Duration::from_secs(epoch);
            assert_eq!(to_rfc3339(time), text);
            assert_eq!(from_rfc3339(text), Some(time), "{text}");
        }
        let time = UNIX_EPOCH + Duration::from_secs(784_111_777);
        assert_eq!(from_http_date("Sun, 06 Nov 1994 08:49:37 GMT"), Some(time));
        for text in ["", "2000-13-01T00:00:00Z", "2000-01-01", "0001-01-01T00:00:00Z"] {
            assert_eq!(from_rfc3339(text), None, "{text}");
        }
        for text in ["", "Sun, 06 nov 1994 08:49:37 GMT", "Sun, 06 Nov 1994"] {
            assert_eq!(from_http_date(text), None, "{text}");
        }
    }
}
