//! Values on the command line.

/// A duration: `500ms`, `90s`, `5m`, `2h`, or seconds.
pub(crate) fn duration(text: &str) -> Result<std::time::Duration, String> {
    crate::config::parse_duration(text)
        .or_else(|| text.parse().ok().map(std::time::Duration::from_secs))
        .ok_or_else(|| "a duration looks like 500ms, 90s, 5m or 2h".to_owned())
}

/// A speed of replay.
pub(crate) fn speed(text: &str) -> Result<f64, String> {
    let speed: Option<f64> = text.trim_end_matches(['x', '×']).parse().ok();
    speed.filter(|speed| (0.1..=100.0).contains(speed)).ok_or_else(|| "a speed is 0.1 to 100".to_owned())
}

/// A time in a recording: a duration, or minutes and seconds with a colon.
pub(crate) fn position(text: &str) -> Result<std::time::Duration, String> {
    let parts: Option<Vec<u64>> = text.split(':').map(|part| part.parse().ok()).collect();
    match parts.as_deref() {
        Some([_, rest @ ..]) if !rest.is_empty() && rest.len() <= 2 && rest.iter().all(|part| *part < 60) => {
            let seconds = parts
                .into_iter()
                .flatten()
                .try_fold(0u64, |all, part| all.checked_mul(60)?.checked_add(part));
            seconds.map(std::time::Duration::from_secs).ok_or_else(|| "that is too long".to_owned())
        }
        _ => duration(text).map_err(|_| "a time looks like 90s, 5m, 1:30 or 1:02:03".to_owned()),
    }
}

/// A variable with its value.
pub(crate) fn env_pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("an environment variable looks like NAME=VALUE".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_speeds_are_read() {
        let seconds = |text| position(text).map(|time| time.as_secs());
        assert_eq!((seconds("90"), seconds("1:30"), seconds("1:02:03")), (Ok(90), Ok(90), Ok(3723)));
        assert_eq!(seconds("2m"), Ok(120));
        assert!(position("1:75").is_err() && position("x").is_err() && position("1:2:3:4").is_err());
        assert_eq!(speed("2x"), Ok(2.0));
        assert!(speed("0").is_err() && speed("NaN").is_err());
    }
}
