//! Small files of one JSON document: a header line that says what it is and in which version, a checksum, the document. A torn
//! or damaged file is told from a good one; what it then counts as is its owner's to say.

use serde::{Serialize, de::DeserializeOwned};

/// The text of a file.
pub fn render(header: &str, document: &impl Serialize) -> String {
    let body = serde_json::to_string(document).expect("plain data");
    format!("{header}\n{:08x}\n{body}\n", crc32fast::hash(body.as_bytes()))
}

/// The document, or what is wrong with the file.
pub fn parse<T: DeserializeOwned>(header: &str, text: &str) -> Result<T, String> {
    let mut lines = text.lines();
    let head = lines.next().unwrap_or_default();
    if head != header {
        return Err(format!("first line {head:?}, expected {header:?}"));
    }
    let (sum, body) = (lines.next().unwrap_or_default(), lines.next().unwrap_or_default());
    let computed = format!("{:08x}", crc32fast::hash(body.as_bytes()));
    if sum != computed {
        return Err(format!("checksum {sum:?}, computed {computed:?}"));
    }
    serde_json::from_str(body).map_err(|error| error.to_string())
}
