//! Tables with captions and scopes; wide ones scroll inside their box.

use super::super::escape::html;

/// How a column is set.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Column {
    /// Words.
    Text,
    /// Numbers, to the right, never broken.
    Number,
    /// A small drawing.
    Drawing,
}

/// Builds a table; the first cell of each row names it.
pub(super) struct Table {
    columns: Vec<Column>,
    out: String,
    rows: usize,
}

impl Table {
    /// With a caption (none: the table is explained by what it stands in) and (heading, kind) of each column.
    pub(super) fn new(caption: &str, columns: &[(&str, Column)]) -> Self {
        let scrolls = columns.len() > 3 && !caption.is_empty();
        let region = if scrolls {
            format!(" role=\"region\" tabindex=\"0\" aria-label=\"{}\"", super::super::escape::attribute(caption))
        } else {
            String::new()
        };
        let caption = if caption.is_empty() { String::new() } else { format!("<caption><span>{}</span></caption>\n", html(caption)) };
        let mut out = format!("<div class=\"scroll\"{region}><table>\n{caption}<thead><tr>");
        for (heading, kind) in columns {
            out.push_str(&format!("<th scope=\"col\"{}>{}</th>", kind.class(), html(heading)));
        }
        out.push_str("</tr></thead>\n<tbody>\n");
        Self { columns: columns.iter().map(|(_, kind)| *kind).collect(), out, rows: 0 }
    }

    /// A row of cells that are escaped already; `class` may be empty.
    pub(super) fn row(&mut self, class: &str, cells: &[String]) {
        debug_assert_eq!(cells.len(), self.columns.len(), "cells of a row");
        self.out.push_str(&if class.is_empty() { "<tr>".to_owned() } else { format!("<tr class=\"{class}\">") });
        for (at, (cell, kind)) in cells.iter().zip(&self.columns).enumerate() {
            let (open, close) = if at == 0 { ("<th scope=\"row\"", "</th>") } else { ("<td", "</td>") };
            self.out.push_str(&format!("{open}{}>{cell}{close}", kind.class()));
        }
        self.out.push_str("</tr>\n");
        self.rows += 1;
    }

    /// The finished table; a sentence instead where it has no rows.
    pub(super) fn finish(self, if_empty: &str) -> String {
        if self.rows == 0 { super::note(if_empty) } else { format!("{}</tbody></table></div>\n", self.out) }
    }
}

impl Column {
    fn class(self) -> &'static str {
        match self {
            Self::Text => "",
            Self::Number => " class=\"n\"",
            Self::Drawing => " class=\"d\"",
        }
    }
}
