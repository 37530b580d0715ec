//! The guard's protocol: one request line, one answer line, over a UNIX stream socket.
//!
//! Decides how requests and answers look as text; never does any I/O, so that the guard, the blocking client
//! and an asynchronous caller share one definition. A line is `word key=value ...\n`; a value with anything but
//! plain characters in it is written in double quotes with `\\`, `\"`, `\n`, `\r` and `\t` escaped.
//!
//! Invariant: whatever `encode` writes, `parse` reads back unchanged, on one line. An unknown verb or field is an
//! error that names it: a request that is half understood must not be obeyed.

mod answer;
mod line;
mod request;
mod status;

pub use answer::Answer;
pub use line::{Fields, Line, WireError};
pub use request::{JobTool, Request, StopMode};
pub use status::{ControlView, PostgresState, Status};

/// The longest line either side accepts, newline included.
pub const LINE_BYTES_MAX: usize = 64 * 1024;

/// Writes an LSN the way PostgreSQL does (`0/3000060`).
pub fn format_lsn(lsn: u64) -> String {
    format!("{:X}/{:X}", lsn >> 32, lsn & 0xffff_ffff)
}

/// Reads an LSN as PostgreSQL writes it; `None` when it is not one.
pub fn parse_lsn(text: &str) -> Option<u64> {
    let (high, low) = text.split_once('/')?;
    let high = u32::from_str_radix(high, 16).ok()?;
    let low = u32::from_str_radix(low, 16).ok()?;
    Some((u64::from(high) << 32) | u64::from(low))
}

/// Writes an instance id: 32 hexadecimal digits.
pub fn format_instance(instance: u128) -> String {
    format!("{instance:032x}")
}

/// Reads an instance id; `None` unless it is exactly 32 hexadecimal digits.
pub fn parse_instance(text: &str) -> Option<u128> {
    if text.len() != 32 || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    u128::from_str_radix(text, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lsn_and_instance_survive_a_round_trip() {
        assert_eq!(format_lsn(0x1_0300_0060), "1/3000060");
        assert_eq!(parse_lsn("1/3000060"), Some(0x1_0300_0060));
        assert_eq!(parse_lsn("nonsense"), None);
        assert_eq!(parse_instance(&format_instance(7)), Some(7));
        assert_eq!(parse_instance("7"), None);
        assert_eq!(parse_instance(&"+".repeat(32)), None);
    }
}
