//! CSV as it is written for people: RFC 4180, with cells that a spreadsheet would run as formulas made harmless.

/// A row with its line end. A cell that begins like a formula gets an apostrophe, which spreadsheets do not show as text.
///
/// ```
/// assert_eq!(data::csv_row(["a", "b, c", "say \"so\"", "=1+1"]), "a,\"b, c\",\"say \"\"so\"\"\",'=1+1\n");
/// assert_eq!(data::without_apostrophe("'=1+1"), "=1+1");
/// ```
pub fn csv_row<'a>(cells: impl IntoIterator<Item = &'a str>) -> String {
    let mut row = String::new();
    for (i, cell) in cells.into_iter().enumerate() {
        row.push_str(if i > 0 { "," } else { "" });
        let harmless = if is_formula(cell) { format!("'{cell}") } else { cell.to_owned() };
        if harmless.contains([',', '"', '\n', '\r']) {
            row.push_str(&format!("\"{}\"", harmless.replace('"', "\"\"")));
        } else {
            row.push_str(&harmless);
        }
    }
    row.push('\n');
    row
}

fn is_formula(cell: &str) -> bool {
    cell.starts_with(['=', '+', '-', '@', '\t', '\r'])
}

/// The cell as it was before [`csv_row`] made it harmless.
pub fn without_apostrophe(cell: &str) -> &str {
    cell.strip_prefix('\'').filter(|rest| is_formula(rest)).unwrap_or(cell)
}
