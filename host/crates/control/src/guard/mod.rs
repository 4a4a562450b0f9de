//! The guard: looks in a submission for instructions to whoever judges it, before an oracle that asks a language model
//! reads it.
//!
//! A filter, not a proof: it knows some forms of a trick that has no end of forms, and it may refuse an honest text about
//! the subject. What it sees and what it does not is in `docs/evaluation.md`. It does no I/O, and its time and memory are
//! linear in the size of the submission: the text is folded into two buffers ([`text`]), and expressions that never
//! backtrack ([`rules`]) go over each of them once.

mod rules;
#[cfg(test)]
mod tests;
mod text;

use rules::{MARKS, PHRASES};
use text::Text;

/// What a submission must not do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rule {
    /// Tells the reader to forget what it was told.
    SetsAsideInstructions,
    /// Tells the reader to be somebody else, or that other instructions hold now.
    GivesNewRole,
    /// Asks for, or replaces, the system prompt.
    AsksForPrompt,
    /// Says what the verdict has to be.
    DictatesVerdict,
    /// Has the marks that separate the parts of a conversation with a model.
    ImitatesConversation,
    /// Pretends that the submission ends here.
    LeavesItsFence,
    /// Grows to several times its size when its characters are taken apart.
    GrowsTooMuch,
}

impl Rule {
    /// Its name, for programs.
    const fn as_str(self) -> &'static str {
        match self {
            Self::SetsAsideInstructions => "sets_aside_instructions",
            Self::GivesNewRole => "gives_new_role",
            Self::AsksForPrompt => "asks_for_prompt",
            Self::DictatesVerdict => "dictates_verdict",
            Self::ImitatesConversation => "imitates_conversation",
            Self::LeavesItsFence => "leaves_its_fence",
            Self::GrowsTooMuch => "grows_too_much",
        }
    }
}

/// The first thing that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Finding {
    /// What it does.
    pub(crate) rule: Rule,
    /// The string in which it begins, as a JSON Pointer.
    pub(crate) path: String,
    /// Whether it stands there in Base64.
    pub(crate) in_base64: bool,
}

impl std::fmt::Display for Finding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "`{}` ", self.rule.as_str())?;
        if self.path.is_empty() {
            f.write_str("in its text")?
        } else {
            write!(f, "at `{}`", self.path)?
        }
        if self.in_base64 { f.write_str(", in Base64") } else { Ok(()) }
    }
}

/// Looks through a JSON document: all of its strings, the names of fields too. Blocks for as long as that takes.
pub(crate) fn look_through(json: &str) -> Option<Finding> {
    let finding = |rule, place: text::Place| Finding {
        rule,
        path: text::pointer(json, place.at),
        in_base64: place.in_base64,
    };
    let text = match Text::of(json) {
        Ok(text) => text,
        Err(place) => return Some(finding(Rule::GrowsTooMuch, place)),
    };
    let phrase = PHRASES.iter().find_map(|(rule, expression)| {
        Some((*rule, text.place_of_letter(expression.find(&text.letters)?.start())))
    });
    let found = phrase.or_else(|| {
        MARKS.iter().find_map(|(rule, expression)| {
            Some((*rule, text.place_of_mark(expression.find(&text.marks)?.start())))
        })
    });
    found.map(|(rule, place)| finding(rule, place))
}
