//! The part of the ZIP format that npz files use: stored and deflated members, no encryption, below 4 GiB.
//!
//! Own code because the archive crates bring C libraries and put dates into what they write.
//! Source: PKWARE's APPNOTE.TXT, sections 4.3.7 (local header), 4.3.12 (central directory), 4.3.16 (its end).

const LOCAL: u32 = 0x0403_4b50;
const CENTRAL: u32 = 0x0201_4b50;
const END: u32 = 0x0605_4b50;
const END_LENGTH: usize = 22;
const STORED: u16 = 0;
const DEFLATED: u16 = 8;
/// 1 January 1980, the format's zero.
const DATE: u16 = 0x0021;

/// CRC-32 (IEEE 802.3, reflected polynomial 0xEDB88320).
fn crc32(bytes: &[u8]) -> u32 {
    const TABLE: [u32; 256] = {
        let mut table = [0; 256];
        let mut byte = 0;
        while byte < 256 {
            let mut value = byte as u32;
            let mut bit = 0;
            while bit < 8 {
                value = if value & 1 == 1 {
                    (value >> 1) ^ 0xEDB8_8320
                } else {
                    value >> 1
                };
                bit += 1;
            }
            table[byte] = value;
            byte += 1;
        }
        table
    };
    !bytes.iter().fold(!0, |crc, &byte| {
        (crc >> 8) ^ TABLE[((crc ^ u32::from(byte)) & 0xFF) as usize]
    })
}

/// An archive of stored members.
pub(super) fn write(members: &[(String, Vec<u8>)]) -> Result<Vec<u8>, String> {
    let too_large = || "the arrays exceed the 4 GiB of one npz file".to_owned();
    let mut bytes = Vec::with_capacity(members.iter().map(|(_, data)| data.len() + 256).sum());
    let mut central = Vec::new();
    for (name, data) in members {
        let offset = u32::try_from(bytes.len()).map_err(|_| too_large())?;
        let length = u32::try_from(data.len()).map_err(|_| too_large())?;
        let name_length =
            u16::try_from(name.len()).map_err(|_| format!("the name {name} is too long"))?;
        let mut common = Vec::with_capacity(26);
        for value in [20, 0, STORED, 0, DATE] {
            common.extend_from_slice(&u16::to_le_bytes(value));
        }
        for value in [crc32(data), length, length] {
            common.extend_from_slice(&u32::to_le_bytes(value));
        }
        common.extend_from_slice(&name_length.to_le_bytes());
        common.extend_from_slice(&[0; 2]); // no extra field

        bytes.extend_from_slice(&LOCAL.to_le_bytes());
        bytes.extend_from_slice(&common);
        bytes.extend_from_slice(name.as_bytes());
        bytes.extend_from_slice(data);

        central.extend_from_slice(&CENTRAL.to_le_bytes());
        central.extend_from_slice(&20_u16.to_le_bytes());
        central.extend_from_slice(&common);
        central.extend_from_slice(&[0; 10]); // comment, disk, attributes
        central.extend_from_slice(&offset.to_le_bytes());
        central.extend_from_slice(name.as_bytes());
    }
    let count = u16::try_from(members.len()).map_err(|_| "too many arrays".to_owned())?;
    let offset = u32::try_from(bytes.len()).map_err(|_| too_large())?;
    let length = u32::try_from(central.len()).map_err(|_| too_large())?;
    bytes.extend_from_slice(&central);
    bytes.extend_from_slice(&END.to_le_bytes());
    bytes.extend_from_slice(&[0; 4]);
    bytes.extend_from_slice(&count.to_le_bytes());
    bytes.extend_from_slice(&count.to_le_bytes());
    bytes.extend_from_slice(&length.to_le_bytes());
    bytes.extend_from_slice(&offset.to_le_bytes());
    bytes.extend_from_slice(&[0; 2]);
    Ok(bytes)
}

fn u16_at(bytes: &[u8], at: usize) -> Result<u16, String> {
    let slice = bytes.get(at..at + 2).ok_or("it is truncated")?;
    Ok(u16::from_le_bytes([slice[0], slice[1]]))
}

fn u32_at(bytes: &[u8], at: usize) -> Result<u32, String> {
    let slice = bytes.get(at..at + 4).ok_or("it is truncated")?;
    Ok(u32::from_le_bytes([slice[0], slice[1], slice[2], slice[3]]))
}

/// All members of an archive, checked against their checksums.
pub(super) fn read(bytes: &[u8]) -> Result<Vec<(String, Vec<u8>)>, String> {
    if bytes.is_empty() {
        return Err("it is empty".into());
    }
    if !bytes.starts_with(b"PK") {
        return Err("it does not begin like one".into());
    }
    // The end record is last but for a comment of at most 64 KiB.
    let last = bytes
        .len()
        .checked_sub(END_LENGTH)
        .ok_or("it is truncated")?;
    let end = (last.saturating_sub(usize::from(u16::MAX))..=last)
        .rev()
        .find(|&at| u32_at(bytes, at) == Ok(END))
        .ok_or("it is truncated")?;
    let count = u16_at(bytes, end + 10)?;
    let mut at = u32_at(bytes, end + 16)? as usize;
    let mut members = Vec::with_capacity(usize::from(count));
    for _ in 0..count {
        if u32_at(bytes, at)? != CENTRAL {
            return Err("its directory is damaged".into());
        }
        let flags = u16_at(bytes, at + 8)?;
        let method = u16_at(bytes, at + 10)?;
        let crc = u32_at(bytes, at + 16)?;
        let packed = u32_at(bytes, at + 20)? as usize;
        let unpacked = u32_at(bytes, at + 24)? as usize;
        let name_length = usize::from(u16_at(bytes, at + 28)?);
        let extra_length = usize::from(u16_at(bytes, at + 30)?);
        let comment_length = usize::from(u16_at(bytes, at + 32)?);
        let local = u32_at(bytes, at + 42)? as usize;
        let name = bytes
            .get(at + 46..at + 46 + name_length)
            .ok_or("it is truncated")?;
        let name = String::from_utf8_lossy(name).into_owned();
        at += 46 + name_length + extra_length + comment_length;

        if packed == u32::MAX as usize || unpacked == u32::MAX as usize {
            return Err(format!("its member '{name}' exceeds 4 GiB"));
        }
        if flags & 1 == 1 {
            return Err(format!("its member '{name}' is encrypted"));
        }
        if u32_at(bytes, local)? != LOCAL {
            return Err(format!("its member '{name}' is damaged"));
        }
        let start = local
            + 30
            + usize::from(u16_at(bytes, local + 26)?)
            + usize::from(u16_at(bytes, local + 28)?);
        let data = bytes.get(start..start + packed).ok_or("it is truncated")?;
        let data = match method {
            STORED => data.to_vec(),
            DEFLATED => miniz_oxide::inflate::decompress_to_vec_with_limit(data, unpacked)
                .map_err(|_| format!("its member '{name}' cannot be unpacked"))?,
            other => {
                return Err(format!(
                    "its member '{name}' is packed by the unsupported method {other}"
                ));
            }
        };
        if data.len() != unpacked || crc32(&data) != crc {
            return Err(format!("its member '{name}' does not match its checksum"));
        }
        members.push((name, data));
    }
    Ok(members)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksum_of_the_standard_example() {
        assert_eq!(crc32(b"123456789"), 0xCBF4_3926);
    }

    #[test]
    fn deflated_members_are_unpacked() {
        // A stored archive turned into a deflated one.
        let data = vec![7_u8; 5000];
        let packed = miniz_oxide::deflate::compress_to_vec(&data, 6);
        let mut archive = write(&[("a".into(), packed.clone())]).unwrap();
        let central = 30 + 1 + packed.len();
        for (method, crc, unpacked) in [(8, 14, 22), (central + 10, central + 16, central + 24)] {
            archive[method] = 8;
            archive[crc..crc + 4].copy_from_slice(&crc32(&data).to_le_bytes());
            archive[unpacked..unpacked + 4].copy_from_slice(&5000_u32.to_le_bytes());
        }
        assert_eq!(read(&archive).unwrap(), [("a".to_owned(), data)]);
    }
}
