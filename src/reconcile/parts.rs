//! The text of a message and the map of its parts: an error can be traced to a file and a line, and the
//! answers tell how far the server came.

use std::fmt::Write as _;

use tokio_postgres::error::ErrorPosition;

use crate::fleet::Release;

/// Part of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    /// Statements of ours.
    Ours,
    /// A migration file, by ordinal.
    File(usize),
    /// The commit of a transaction whose last file has this ordinal.
    Commit(usize),
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
        release: &Release,
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
            let Part::File(ordinal) = part else {
                return None;
            };
            return Some((
                *ordinal,
                self.sql[span.start..byte].matches('\n').count() + 1,
            ));
        }
        let mut before = 0;
        for (part, span) in &self.parts {
            if let Part::File(ordinal) = part
                && answered < before + span.statements
            {
                let (_, statements) = release.set.files()[ordinal - 1].in_transaction();
                return Some((*ordinal, statements[answered - before].line));
            }
            before += span.statements;
            if answered < before {
                return None;
            }
        }
        None
    }
}
