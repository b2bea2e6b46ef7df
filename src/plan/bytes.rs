//! A file that is not all UTF-8, such as an fstab with a comment in Latin-1, as a text that can be had back byte for byte.
//!
//! Each byte that is not UTF-8 becomes a letter of its own out of Unicode's private use. Where a file has such a letter itself, each of
//! the letter's bytes becomes one, so that two files never have the same text.

/// What stands for byte 0; the 256 from here on are in nobody's alphabet.
const FIRST: u32 = 0xf700;

/// The text of a file.
pub fn text_of(bytes: &[u8]) -> String {
    let mut text = String::new();
    for chunk in bytes.utf8_chunks() {
        for letter in chunk.valid().chars() {
            match byte_of(letter) {
                Some(_) => text.extend(letter.encode_utf8(&mut [0; 4]).bytes().filter_map(letter_of)),
                None => text.push(letter),
            }
        }
        text.extend(chunk.invalid().iter().copied().filter_map(letter_of));
    }
    text
}

/// The bytes of a text, as they were in the file.
pub fn bytes_of(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    for letter in text.chars() {
        match byte_of(letter) {
            Some(byte) => bytes.push(byte),
            None => bytes.extend(letter.encode_utf8(&mut [0; 4]).bytes()),
        }
    }
    bytes
}

/// Whether all of it was UTF-8.
pub(super) fn is_whole(text: &str) -> bool {
    text.chars().all(|letter| byte_of(letter).is_none())
}

fn letter_of(byte: u8) -> Option<char> {
    char::from_u32(FIRST + u32::from(byte))
}

fn byte_of(letter: char) -> Option<u8> {
    u8::try_from(u32::from(letter).checked_sub(FIRST)?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_is_had_back_byte_for_byte() {
        let all: Vec<u8> = (0..=u8::MAX).collect();
        let own = "\u{f6ff}\u{f700}\u{f7e9}\u{f7ff}\u{f800}"; // letters that stand for bytes, and their neighbours
        for bytes in
            [b"# B\xfcro\n//nas/a /a cifs\n".as_slice(), &all, own.as_bytes(), "Büro\u{1f600}".as_bytes(), b"\xc3"]
        {
            assert_eq!(bytes_of(&text_of(bytes)), bytes, "{bytes:?}");
        }
        assert_ne!(text_of(b"\xfc"), text_of(text_of(b"\xfc").as_bytes()), "two files never have the same text");
    }

    #[test]
    fn what_was_not_utf8_is_known() {
        for text in ["", "# Büro", "\u{f6ff}\u{f800}"] {
            assert_eq!(text_of(text.as_bytes()), text);
            assert!(is_whole(text), "{text}");
        }
        assert!(!is_whole(&text_of(b"/mnt/B\xfcro")));
    }
}
