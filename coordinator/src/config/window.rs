//! The maintenance window as text: `"sat,sun 02:00-05:00"`, `"daily 23:00-01:00"`; UTC.

use regent_core::Window;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

const DAYS: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];

/// A window that was given as text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Text(pub Window);

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        parse(&text).map(Text).ok_or_else(|| {
            D::Error::custom(format!(
                "failback_window {text:?} is not of the form \"sat,sun 02:00-05:00\" or \"daily 23:00-01:00\" (UTC)"
            ))
        })
    }
}

impl Serialize for Text {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Window { days, from_minute, to_minute } = &self.0;
        let names: Vec<&str> = days.iter().filter_map(|day| DAYS.get(usize::from(*day)).copied()).collect();
        let days = if names.len() == DAYS.len() { "daily".to_owned() } else { names.join(",") };
        let hour = |minute: &u16| format!("{:02}:{:02}", minute / 60, minute % 60);
        serializer.collect_str(&format_args!("{days} {}-{}", hour(from_minute), hour(to_minute)))
    }
}

fn parse(text: &str) -> Option<Window> {
    let (days, hours) = text.trim().split_once(' ')?;
    let days = if days == "daily" {
        (0..7).collect()
    } else {
        let mut days = days
            .split(',')
            .map(|name| DAYS.iter().position(|day| *day == name).and_then(|day| u8::try_from(day).ok()))
            .collect::<Option<Vec<u8>>>()?;
        days.sort_unstable();
        days.dedup();
        days
    };
    let (from, to) = hours.trim().split_once('-')?;
    let window = Window { days, from_minute: minute(from, 23)?, to_minute: minute(to, 24)? };
    (window.from_minute != window.to_minute && window.to_minute <= 1440).then_some(window)
}

fn minute(text: &str, hour_max: u16) -> Option<u16> {
    let (hour, minute) = text.split_once(':')?;
    let digits = |part: &str| (part.len() == 2).then(|| part.parse::<u16>().ok()).flatten();
    let (hour, minute) = (digits(hour)?, digits(minute)?);
    (hour <= hour_max && minute < 60).then_some(hour * 60 + minute)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_is_read_and_nonsense_is_not() {
        let read = parse("sat,sun 02:00-05:30").unwrap();
        assert_eq!(read, Window { days: vec![5, 6], from_minute: 120, to_minute: 330 });
        assert_eq!(parse("daily 23:00-01:00").unwrap().days.len(), 7);
        assert!(parse("mon 00:00-24:00").is_some());
        for bad in [
            "",
            "sat",
            "sat 2:00-05:00",
            "sat 02:00",
            "sam 02:00-05:00",
            "sat 02:00-02:00",
            "sat 24:00-01:00",
        ] {
            assert!(parse(bad).is_none(), "{bad}");
        }
    }
}
