//! Characters that people do not see.

/// True of a character that shows nothing, or that moves what stands beside it: a text with one can look like another
/// text. These are Unicode's controls, its `Default_Ignorable_Code_Point` (UAX 44; joiners, fillers, variation
/// selectors, tags), its marks of direction, its separators of lines, and the blank pattern of Braille.
#[must_use]
pub fn is_unseen(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}'..='\u{1160}' | '\u{17b4}'..='\u{17b5}')
        || matches!(c, '\u{180b}'..='\u{180f}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}')
        || matches!(c, '\u{2060}'..='\u{206f}' | '\u{2800}' | '\u{3164}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}')
        || matches!(c, '\u{ffa0}' | '\u{fff0}'..='\u{fffb}' | '\u{1bca0}'..='\u{1bca3}' | '\u{1d173}'..='\u{1d17a}')
        || matches!(c, '\u{e0000}'..='\u{e0fff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_shows_is_seen() {
        assert!(!"OPS-1 Größe 東京 Київ 🔑 ½ é “a” … ￼\u{a0}".chars().any(is_unseen));
    }

    #[test]
    fn what_shows_nothing_or_turns_the_line_is_not() {
        let unseen = "\0\n\r\t\u{1b}\u{7f}\u{85}\u{9b}\u{ad}\u{34f}\u{61c}\u{115f}\u{1160}\u{17b4}\u{180e}\u{200b}\u{200d}\
                      \u{202e}\u{2028}\u{2066}\u{2060}\u{2800}\u{3164}\u{fe0f}\u{feff}\u{ffa0}\u{fffa}\u{1d173}\u{e0041}\u{e0100}";
        for c in unseen.chars() {
            assert!(is_unseen(c), "{c:?}");
        }
    }
}
