//! A submission's text in one form, whatever it was written with.

use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use unicode_normalization::char::{decompose_compatible, is_combining_mark};
use unicode_security::skeleton;

/// How much longer than the document a folded text may be: each Hangul syllable is three letters.
const MAX_GROWTH: usize = 4;
/// What a text may have besides.
const GROWTH_ALLOWANCE: usize = 1024;
/// From how many characters on something may be Base64: 18 bytes say little.
const LEAST_BASE64: usize = 24;
/// How many steps of a path are told, and how many characters.
const MAX_STEPS: usize = 32;
const MAX_PATH_CHARS: usize = 200;

const LENIENT: GeneralPurposeConfig = GeneralPurposeConfig::new()
    .with_decode_allow_trailing_bits(true)
    .with_decode_padding_mode(DecodePaddingMode::Indifferent);
const STANDARD: GeneralPurpose = GeneralPurpose::new(&alphabet::STANDARD, LENIENT);
const URL_SAFE: GeneralPurpose = GeneralPurpose::new(&alphabet::URL_SAFE, LENIENT);

/// All strings of a document, one after the other.
pub(super) struct Text {
    /// Letters and digits alone: spaces, punctuation and emphasis do not part words.
    pub(super) letters: String,
    /// All but white space.
    pub(super) marks: String,
    places: Vec<Place>,
}

/// Where a string begins.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Place {
    /// In the document, in bytes.
    pub(super) at: usize,
    /// Whether it stood there in Base64.
    pub(super) in_base64: bool,
    letters: usize,
    marks: usize,
}

impl Text {
    /// Reads a document, which is valid JSON. If it grows too much, says where.
    pub(super) fn of(json: &str) -> Result<Self, Place> {
        let most = json.len() * MAX_GROWTH + GROWTH_ALLOWANCE;
        let mut text = Self { letters: String::new(), marks: String::new(), places: Vec::new() };
        for (at, raw) in strings(json) {
            let string = unescape(raw);
            text.add(&string, Place { at, ..Place::default() }, most)?;
            for hidden in base64_runs(&string) {
                text.add(&hidden, Place { at, in_base64: true, ..Place::default() }, most)?;
            }
        }
        Ok(text)
    }

    fn add(&mut self, string: &str, place: Place, most: usize) -> Result<(), Place> {
        let place = Place { letters: self.letters.len(), marks: self.marks.len(), ..place };
        self.places.push(place);
        let mut characters = string.chars().peekable();
        while let Some(character) = characters.next() {
            // A text that is itself the source of a string has its ends of lines in this form.
            if character == '\\' && characters.next_if(|next| matches!(next, 'n' | 'r' | 't')).is_some() {
                continue;
            }
            fold(character, &mut |folded: char| {
                if folded.is_alphanumeric() {
                    self.letters.push(folded);
                }
                if !folded.is_whitespace() {
                    self.marks.push(folded);
                }
            });
            if self.marks.len() > most {
                return Err(place);
            }
        }
        Ok(())
    }

    pub(super) fn place_of_letter(&self, position: usize) -> Place {
        self.last_before(|place| place.letters <= position)
    }

    pub(super) fn place_of_mark(&self, position: usize) -> Place {
        self.last_before(|place| place.marks <= position)
    }

    fn last_before(&self, begins: impl Fn(&Place) -> bool) -> Place {
        let after = self.places.partition_point(begins);
        self.places.get(after.saturating_sub(1)).copied().unwrap_or_default()
    }
}

/// The form in which one character is compared: its parts without accents, in lower case, without what is not seen, and a
/// letter that looks like a Latin one as that one.
pub(super) fn fold(character: char, each: &mut impl FnMut(char)) {
    if character.is_ascii() {
        return each(character.to_ascii_lowercase());
    }
    decompose_compatible(character, |part| {
        for lower in part.to_lowercase() {
            if !is_combining_mark(lower)
                && let Some(folded) = look_alike(lower)
            {
                each(folded);
            }
        }
    });
}

/// The ASCII character that this one passes for, or itself; none if it is not seen.
fn look_alike(character: char) -> Option<char> {
    let code = u32::from(character);
    let letter = |first: u32| char::from_u32(u32::from('a') + code - first);
    match code {
        0..=0x7f => return Some(character),
        // Tags: ASCII that is not drawn and that models read.
        0xe0020..=0xe007e => return char::from_u32(code - 0xe0000).map(|tag| tag.to_ascii_lowercase()),
        // Letters in black circles and squares, and those that flags are made of.
        0x1f150..=0x1f169 => return letter(0x1f150),
        0x1f170..=0x1f189 => return letter(0x1f170),
        0x1f1e6..=0x1f1ff => return letter(0x1f1e6),
        _ => {}
    }
    if let Some(at) = SMALL_CAPITALS.chars().position(|capital| capital == character) {
        return SMALL_CAPITALS_ARE.chars().nth(at);
    }
    // U+1160, U+3164 and the like are letters to Unicode, and nothing is seen of them.
    let mut buffer = [0; 4];
    let mut prototype = skeleton(character.encode_utf8(&mut buffer));
    match (prototype.next(), prototype.next()) {
        (None, _) => None,
        (Some(one), None) if one.is_ascii_alphabetic() => Some(one.to_ascii_lowercase()),
        (Some(one), None) if one.is_ascii_graphic() && !character.is_alphanumeric() => Some(one),
        _ => Some(character),
    }
}

/// Those that Unicode's table of look-alikes leaves out.
const SMALL_CAPITALS: &str = "ᴀʙᴅᴇꜰɢʜɪᴊᴋʟᴍɴᴘꞯʀꜱᴛʏ";
const SMALL_CAPITALS_ARE: &str = "abdefghijklmnpqrsty";

/// The strings of a document, with where they begin and without their quotes.
fn strings(json: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut rest = 0;
    std::iter::from_fn(move || {
        let at = rest + json.get(rest..)?.find('"')?;
        let end = end_of_string(json, at);
        rest = end + 1;
        Some((at, json.get(at + 1..end)?))
    })
}

/// Where the string that begins at `at` has its closing quote.
fn end_of_string(json: &str, at: usize) -> usize {
    let mut escaped = false;
    let after = json.bytes().enumerate().skip(at + 1);
    for (position, byte) in after {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => return position,
            _ => {}
        }
    }
    json.len()
}

/// What a JSON string says. A half of a surrogate pair, which JSON allows and a string of Rust's does not, is U+FFFD.
fn unescape(raw: &str) -> String {
    let mut text = String::with_capacity(raw.len());
    let mut rest = raw;
    while let Some(at) = rest.find('\\') {
        let (before, escape) = rest.split_at(at);
        text.push_str(before);
        let (character, length) = match escape.as_bytes().get(1) {
            Some(b'u') => unicode_escape(escape),
            Some(b'n') => ('\n', 2),
            Some(b'r') => ('\r', 2),
            Some(b't') => ('\t', 2),
            Some(b'b') => ('\u{8}', 2),
            Some(b'f') => ('\u{c}', 2),
            Some(other) => (char::from(*other), 2),
            None => ('\\', 1),
        };
        text.push(character);
        rest = escape.get(length..).unwrap_or_default();
    }
    text.push_str(rest);
    text
}

/// The character of `\u0041` or of a pair like `\ud83d\ude00`, and how many bytes of the text that takes.
fn unicode_escape(text: &str) -> (char, usize) {
    let unit = |at: usize| {
        let digits = text.get(at..at + 6)?.strip_prefix("\\u")?;
        u16::from_str_radix(digits, 16).ok()
    };
    let Some(first) = unit(0) else { return (char::REPLACEMENT_CHARACTER, 2) };
    let pair = [first, unit(6).unwrap_or_default()];
    match char::decode_utf16(pair).next() {
        Some(Ok(character)) => (character, if character.len_utf16() == 2 { 12 } else { 6 }),
        _ => (char::REPLACEMENT_CHARACTER, 6),
    }
}

/// What stands in a text in Base64, also over several lines. One level: what is hidden in that again is not looked for.
fn base64_runs(text: &str) -> impl Iterator<Item = String> {
    let alphabet = |c: char| c.is_ascii_alphanumeric() || matches!(c, '+' | '/' | '-' | '_' | '\r' | '\n');
    text.split(move |c| !alphabet(c)).filter(|run| run.len() >= LEAST_BASE64).flat_map(|run| {
        // A word that stands above it, such as `base64`, is of the same alphabet: without it, and each line by itself, too.
        let below = run.trim_start_matches(['\r', '\n']).split_once('\n').map(|(_, below)| below);
        let lines = below.map(|_| run.lines()).into_iter().flatten();
        let parts = std::iter::once(run).chain(below).chain(lines);
        parts.filter(|part| part.len() >= LEAST_BASE64).filter_map(decoded)
    })
}

fn decoded(run: &str) -> Option<String> {
    let mut run: String = run.chars().filter(|c| !matches!(c, '\r' | '\n')).collect();
    // One digit too many says nothing.
    if run.len() % 4 == 1 {
        run.pop();
    }
    let bytes = STANDARD.decode(&run).or_else(|_| URL_SAFE.decode(&run)).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

/// A container on the way to a string.
enum Step {
    /// The index of the element.
    Element(usize),
    /// Where the name of the field begins.
    Field(usize),
}

/// The JSON Pointer of the string that begins at `at`; of a name, that of its field. Long ones are cut.
pub(super) fn pointer(json: &str, at: usize) -> String {
    let mut steps: Vec<Step> = Vec::new();
    // Containers deeper than those that are told.
    let mut deeper = 0_usize;
    let mut position = 0;
    while position < at {
        match json.as_bytes().get(position) {
            Some(b'"') => {
                if deeper == 0
                    && let Some(Step::Field(name)) = steps.last_mut()
                    && *name == 0
                {
                    *name = position;
                }
                position = end_of_string(json, position);
            }
            Some(b'[' | b'{') if deeper > 0 || steps.len() == MAX_STEPS => deeper += 1,
            Some(b'[') => steps.push(Step::Element(0)),
            // No name begins at 0: it is not known yet.
            Some(b'{') => steps.push(Step::Field(0)),
            Some(b']' | b'}') if deeper > 0 => deeper -= 1,
            Some(b']' | b'}') => drop(steps.pop()),
            Some(b',') if deeper == 0 => match steps.last_mut() {
                Some(Step::Element(index)) => *index += 1,
                Some(Step::Field(name)) => *name = 0,
                None => {}
            },
            _ => {}
        }
        position += 1;
    }
    let mut path = String::new();
    for step in &steps {
        match step {
            Step::Element(index) => path.push_str(&format!("/{index}")),
            Step::Field(name) => {
                let name = if *name == 0 { at } else { *name };
                let name = unescape(json.get(name + 1..end_of_string(json, name)).unwrap_or_default());
                path.push('/');
                path.push_str(&name.replace('~', "~0").replace('/', "~1"));
            }
        }
        if path.chars().nth(MAX_PATH_CHARS).is_some() {
            break;
        }
    }
    let long = deeper > 0 || path.chars().nth(MAX_PATH_CHARS).is_some();
    let mut path: String = path.chars().filter(|c| !c.is_control()).take(MAX_PATH_CHARS).collect();
    if long {
        path.push('…');
    }
    path
}
