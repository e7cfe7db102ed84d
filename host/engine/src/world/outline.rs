//! How a component is laid out, looked at before anything reads it whole.
//!
//! The reader of types believes every length that a file states, and keeps far more for a type
//! than the bytes that it is written in. So what it is given has no more of either than any real
//! component: a file of a few bytes, or one made of nothing but types, costs nobody any memory.

/// The bytes in which a component describes itself: its types, imports, exports, instances, and
/// the types of its modules. Real ones have some tens of KiB.
pub(super) const MOST_OUTLINE_BYTES: usize = 1 << 20;
/// Components and modules within one another.
const MOST_DEPTH: usize = 32;
/// Components, modules and sections together.
const MOST_SECTIONS: usize = 100_000;
/// The header of a component, and of a core module.
const HEADER: usize = 8;
/// What tells a component's header from a core module's.
const COMPONENT_LAYER: [u8; 2] = [1, 0];

/// Sections of a component.
const CUSTOM: u8 = 0;
const MODULE: u8 = 1;
const COMPONENT: u8 = 4;
/// Sections of a core module that describe nothing.
const ELEMENTS: u8 = 9;
const CODE: u8 = 10;
const DATA: u8 = 11;

/// Says in words what is out of bounds.
pub(super) fn check(bytes: &[u8]) -> Result<(), String> {
    let mut outline = 0_usize;
    let mut sections = 0_usize;
    let mut at = HEADER;
    // What is open: whether it is a component, and where it ends.
    let mut open = vec![(true, bytes.len())];
    while let Some(&(is_component, end)) = open.last() {
        if at >= end {
            open.pop();
            continue;
        }
        sections += 1;
        if sections > MOST_SECTIONS {
            return Err(format!("it has more than {MOST_SECTIONS} sections"));
        }
        let section = at;
        let cut_off =
            || "unexpected end-of-file: it was cut off, or is still being written".to_owned();
        let id = *bytes.get(at).ok_or_else(cut_off)?;
        let (length, content) = number(bytes, at + 1).ok_or_else(cut_off)?;
        let next = content.checked_add(length).ok_or_else(cut_off)?;
        if next > end {
            return Err(cut_off());
        }
        at = next;
        match (is_component, id) {
            (_, CUSTOM) | (false, ELEMENTS | CODE | DATA) => {}
            (true, MODULE | COMPONENT) => {
                if open.len() >= MOST_DEPTH {
                    return Err(format!(
                        "it nests components more than {MOST_DEPTH} deep, at offset {section:#x}"
                    ));
                }
                let layer = bytes.get(content + 6..content + HEADER);
                let is_component = layer == Some(&COMPONENT_LAYER[..]);
                open.push((is_component, next));
                at = (content + HEADER).min(next);
            }
            _ => {
                outline = outline.saturating_add(length);
                if outline > MOST_OUTLINE_BYTES {
                    return Err(format!(
                        "its types, imports and exports take more than the {MOST_OUTLINE_BYTES} \
                         bytes that a plugin may have: build it with fewer"
                    ));
                }
            }
        }
    }
    Ok(())
}

/// A number as WebAssembly writes lengths, and where the next byte is.
fn number(bytes: &[u8], mut at: usize) -> Option<(usize, usize)> {
    let mut value = 0_u64;
    for shift in [0, 7, 14, 21, 28] {
        let byte = *bytes.get(at)?;
        at += 1;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some((usize::try_from(value).ok()?, at));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

    use super::*;

    const EMPTY: &[u8] = b"\0asm\x0d\0\x01\0";

    fn with(sections: &[u8]) -> Vec<u8> {
        [EMPTY, sections].concat()
    }

    #[test]
    fn lengths_are_not_believed() {
        let four_gib = with(&[7, 0xff, 0xff, 0xff, 0xff, 0x0f, 0]);
        let said = check(&four_gib).unwrap_err();
        assert!(said.starts_with("unexpected end-of-file"), "{said}");
        assert!(check(&with(&[7, 0x80])).is_err());
        assert!(check(&with(&[7])).is_err());
    }

    #[test]
    fn an_empty_component_and_empty_sections_are_fine() {
        assert_eq!(check(EMPTY), Ok(()));
        assert_eq!(check(&with(&[7, 1, 0, 0, 2, 1, b'x'])), Ok(()));
    }

    #[test]
    fn what_is_inside_ends_where_its_section_ends() {
        // A component of 10 bytes whose last section says that it has 5.
        let inner = with(&[7, 5]);
        let mut outer = vec![COMPONENT, u8::try_from(inner.len()).unwrap()];
        outer.extend(&inner);
        outer.extend([0, 5, 0, 0, 0, 0, 0]);
        assert!(check(&with(&outer)).is_err());
    }
}
