//! How one value lies in the database: layout version, CRC-32, body. The checksum covers table and key as well, so a
//! record under a wrong key is found, not only a flipped bit. redb checks its pages when it opens; this also covers
//! what happens to them later.

const VERSION: u8 = 1;
const HEAD_BYTES: usize = 5;

fn checksum(table: &str, key: &[u8], body: &[u8]) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    crc.update(table.as_bytes());
    crc.update(&[0, VERSION]);
    crc.update(key);
    crc.update(body);
    crc.finalize()
}

pub(crate) fn seal(table: &str, key: &[u8], body: &[u8]) -> Vec<u8> {
    let mut record = Vec::with_capacity(HEAD_BYTES + body.len());
    record.push(VERSION);
    record.extend_from_slice(&checksum(table, key, body).to_le_bytes());
    record.extend_from_slice(body);
    record
}

/// The body, or what is wrong with the record.
pub(crate) fn unseal<'a>(table: &str, key: &[u8], record: &'a [u8]) -> Result<&'a [u8], String> {
    let Some((head, body)) = record.split_at_checked(HEAD_BYTES) else {
        return Err(format!("record of {} bytes is shorter than its head", record.len()));
    };
    let stored = u32::from_le_bytes([head[1], head[2], head[3], head[4]]);
    let computed = checksum(table, key, body);
    if head[0] != VERSION {
        return Err(format!("record layout {} is not the known layout {VERSION}", head[0]));
    }
    if stored != computed {
        return Err(format!("checksum is {stored:08x}, contents give {computed:08x}"));
    }
    Ok(body)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_flipped_bit_and_every_wrong_key_is_found() {
        let record = seal("log", &[7], b"body");
        assert_eq!(unseal("log", &[7], &record), Ok(&b"body"[..]));
        for bit in 0..record.len() * 8 {
            let mut flipped = record.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(unseal("log", &[7], &flipped).is_err(), "bit {bit}");
        }
        assert!(unseal("log", &[8], &record).is_err());
        assert!(unseal("meta", &[7], &record).is_err());
        assert!(unseal("log", &[7], &record[..3]).is_err());
    }
}
