//! `report.html`: one file that needs nothing but itself. No script, no network, no font, no picture from elsewhere; the content
//! security policy at its head says so to the browser.
//!
//! The order is that of a reader's questions: what is the verdict and why, what was *not* measured, in detail, how was it
//! trained and on what, which answers changed, and by which hashes can all of it be checked.

mod answers;
mod data;
mod measures;
mod record;
mod table;
mod texts;
mod training;
mod verdict;

use super::escape::{attribute, html};
use super::facts::Report;
use super::words;

/// One section of the page.
struct Section {
    id: &'static str,
    title: &'static str,
    body: String,
}

/// Draws the page. The same report gives the same bytes.
#[must_use]
pub fn page(report: &Report) -> String {
    let sections = [
        if words::is_text(report) { texts::comparison(report) } else { verdict::comparison(report) },
        verdict::not_measured(report),
        measures::measures(report),
        measures::near_ood(report),
        measures::far_ood(report),
        training::training(report),
        data::data(report),
        training::memory(report),
        data::power(report),
        if words::is_text(report) { texts::texts(report) } else { answers::answers(report) },
        record::sources(report),
        record::base(report),
        record::plan(report),
        record::run(report),
    ];
    let sections: Vec<Section> = sections.into_iter().flatten().collect();
    let word = report.verdict.as_ref().map_or("no verdict yet", |verdict| verdict.word.as_str());
    let mut page = format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'; img-src data:; script-src 'none'; base-uri 'none'; form-action 'none'\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<meta name=\"color-scheme\" content=\"light dark\">\n\
         <meta name=\"referrer\" content=\"no-referrer\">\n<meta name=\"generator\" content=\"{}\">\n<link rel=\"icon\" href=\"data:,\">\n\
         <title>{}: {} · report of run {}</title>\n<style>\n{}</style>\n</head>\n<body>\n<a class=\"skip\" href=\"#main\">To the report</a>\n",
        attribute(&report.program),
        attribute(&report.project.name),
        attribute(word),
        attribute(&report.run.id),
        include_str!("style.css"),
    );
    page.push_str(&verdict::head(report));
    page.push_str("<div class=\"columns\">\n<nav aria-label=\"Contents\"><ol>\n");
    for section in &sections {
        page.push_str(&format!("<li><a href=\"#{}\">{}</a></li>\n", section.id, html(section.title)));
    }
    page.push_str("</ol></nav>\n<main id=\"main\">\n");
    for Section { id, title, body } in &sections {
        page.push_str(&format!(
            "<section id=\"{id}\" aria-labelledby=\"{id}-h\">\n<h2 id=\"{id}-h\">{}</h2>\n{body}</section>\n",
            html(title)
        ));
    }
    page.push_str(&format!(
        "</main>\n</div>\n<footer><p>Written by {} for run <code>{}</code>. This page loads nothing and runs no script; every number on it stands in <code>report.json</code>.</p></footer>\n</body>\n</html>\n",
        html(&report.program),
        html(&report.run.id),
    ));
    page
}

/// A paragraph of plain text.
fn paragraph(text: &str) -> String {
    format!("<p>{}</p>\n", html(text))
}

/// The same, set back.
fn note(text: &str) -> String {
    format!("<p class=\"note\">{}</p>\n", html(text))
}

/// Text, or a mark that says it is missing.
fn or_blank(text: &str) -> String {
    if text.trim().is_empty() { "<span class=\"blank\">BLANK</span>".to_owned() } else { html(text) }
}

/// A sentence with its first letter in upper case.
fn sentence(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().collect::<String>() + letters.as_str())
}

/// Terms and their (already escaped) descriptions.
fn facts(lines: &[(&str, String)]) -> String {
    let mut list = String::from("<dl class=\"facts\">\n");
    for (term, description) in lines {
        list.push_str(&format!("<div><dt>{}</dt><dd>{description}</dd></div>\n", html(term)));
    }
    list.push_str("</dl>\n");
    list
}

/// A chart with its heading and legend.
fn figure(title: &str, legend: &str, chart: &str) -> String {
    format!("<figure><figcaption><strong>{}</strong>{legend}</figcaption><div class=\"scroll\">{chart}</div></figure>\n", html(title))
}

/// One entry of a legend.
fn legend(class: &str, dot: bool, text: &str) -> String {
    format!(" <span class=\"key\">{}{}</span>", super::svg::swatch(class, dot), html(text))
}

/// Class of an arm's colour.
fn arm_class(name: &str) -> &'static str {
    match name {
        "base" => "arm-base",
        "few-shot" => "arm-few-shot",
        "classical" => "arm-classical",
        "imported" => "arm-imported",
        "tuned" => "arm-tuned",
        _ => "arm-other",
    }
}

#[cfg(test)]
mod tests;
