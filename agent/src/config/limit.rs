//! Limits: a time or a number of bytes, or `"off"`.

use std::time::Duration;

use serde::{Deserialize, Deserializer, de::Error};

const OFF: &str = "off";

pub(super) fn time<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Duration>, D::Error> {
    let text = String::deserialize(from)?;
    if text == OFF {
        return Ok(None);
    }
    let time = humantime::parse_duration(&text);
    time.map(Some).map_err(|error| Error::custom(format!("{text:?} is neither a time ({error}) nor \"off\"")))
}

pub(super) fn bytes<'de, D: Deserializer<'de>>(from: D) -> Result<Option<u64>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Value {
        Bytes(u64),
        Text(String),
    }
    match Value::deserialize(from) {
        Ok(Value::Bytes(bytes)) => Ok(Some(bytes)),
        Ok(Value::Text(text)) if text == OFF => Ok(None),
        _ => Err(Error::custom("use a number of bytes, or \"off\"")),
    }
}
