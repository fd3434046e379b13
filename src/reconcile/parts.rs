//! The text of a message and the map of its parts: an error can be traced to a file and a line, and the
//! answers tell how far the server came.

use std::fmt::Write as _;

use tokio_postgres::error::ErrorPosition;

/// Part of a message.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// Statements of ours.
    Ours,
    /// Text of a migration file, or asked on behalf of it.
    File(Place),
    /// The commit of a transaction whose last file has this ordinal.
    Commit(usize),
}

/// Where text comes from.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// Ordinal of the file.
    pub(super) ordinal: usize,
    /// Its line where the text begins.
    pub(super) line: usize,
    /// Its lines where the statements begin.
    pub(super) statements: Vec<usize>,
}

/// The text of a message and the map of its parts.
#[derive(Debug)]
pub struct Message {
    /// What is sent.
    pub sql: String,
    parts: Vec<(Part, Span)>,
}

#[derive(Debug, Clone, Copy)]
struct Span {
    /// Byte offset of the part.
    start: usize,
    /// Statements in it, each answered by one CommandComplete.
    statements: usize,
}

impl Message {
    pub(super) fn empty() -> Self {
        Self {
            sql: String::with_capacity(16 * 1024),
            parts: Vec::new(),
        }
    }

    pub(super) fn ours(&mut self, sql: &str, statements: usize) {
        self.part(Part::Ours, statements);
        let _ = writeln!(self.sql, "{sql};");
    }

    /// Text of a file. The line end closes a comment, the semicolon a statement; an empty statement is not
    /// answered.
    pub(super) fn text(&mut self, place: Place, sql: &str) {
        let statements = place.statements.len();
        self.part(Part::File(place), statements);
        let _ = write!(self.sql, "{sql}\n;\n");
    }

    pub(super) fn part(&mut self, part: Part, statements: usize) {
        self.parts.push((
            part,
            Span {
                start: self.sql.len(),
                statements,
            },
        ));
    }

    /// The ordinal of the last committed file, after this many statements were answered.
    pub fn committed(&self, answered: usize) -> Option<usize> {
        let mut seen = 0;
        let mut last = None;
        for (part, span) in &self.parts {
            seen += span.statements;
            if seen > answered {
                break;
            }
            if let Part::Commit(ordinal) = part {
                last = Some(*ordinal);
            }
        }
        last
    }

    /// Where an error happened: the ordinal of the file, and the line in it. By the server's position
    /// where it gives one, else by counting the statements that were answered.
    pub fn locate(
        &self,
        position: Option<&ErrorPosition>,
        answered: usize,
    ) -> Option<(usize, usize)> {
        if let Some(ErrorPosition::Original(characters)) = position {
            let characters = usize::try_from(*characters).ok()?.saturating_sub(1);
            let byte = self
                .sql
                .char_indices()
                .nth(characters)
                .map_or(self.sql.len(), |(byte, _)| byte);
            let (part, span) = self
                .parts
                .iter()
                .rev()
                .find(|(_, span)| span.start <= byte)?;
            let Part::File(place) = part else {
                return None;
            };
            let lines = self.sql[span.start..byte].matches('\n').count();
            return Some((place.ordinal, place.line + lines));
        }
        let mut before = 0;
        for (part, span) in &self.parts {
            if answered < before + span.statements {
                let Part::File(place) = part else {
                    return None;
                };
                return Some((place.ordinal, place.statements[answered - before]));
            }
            before += span.statements;
        }
        None
    }
}
