//! What a run file says about the form of records, how much each counts, and copies of them.

use std::path::PathBuf;

use data::augment::COPIES_MAX;
use data::forms::{DateOrder, DecimalMark};
use serde::{Deserialize, Serialize};

use super::{between, choice, fraction, range};
use crate::error::SpecError;

/// How strata are evened out.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum BalanceBy {
    /// Records beyond the limit are drawn out.
    #[default]
    Sampling,
    /// All stay, and those of frequent strata count less in the loss.
    Weights,
}

/// Dates, numbers and units, each in one form.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
#[serde(default)]
pub struct Forms {
    /// Dates as ISO 8601 has them.
    #[serde(rename = "iso_dates", skip_serializing_if = "is_false")]
    pub dates: bool,
    /// `day_first`, `month_first`, or empty: only what can be read in one way.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub date_order: String,
    /// Numbers without signs between thousands and with a decimal point.
    #[serde(rename = "plain_numbers", skip_serializing_if = "is_false")]
    pub numbers: bool,
    /// `point`, `comma`, or empty: only what can be read in one way.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub decimal_mark: String,
    /// Units as their symbols.
    #[serde(rename = "unit_symbols", skip_serializing_if = "is_false")]
    pub units: bool,
}

fn is_false(value: &bool) -> bool {
    !value
}

impl Forms {
    pub(super) fn resolve(
        dates: Option<String>,
        date_order: Option<String>,
        numbers: Option<String>,
        decimal_mark: Option<String>,
        units: Option<String>,
    ) -> Result<Self, SpecError> {
        let named = |key: &str, given: Option<String>, names: [&'static str; 2]| {
            let choices = [("", ""), (names[0], names[0]), (names[1], names[1])];
            choice(key, given.filter(|given| !given.is_empty()), &choices).map(str::to_owned)
        };
        let forms = Self {
            dates: choice("prepare.dates", dates, &[("keep", false), ("iso", true)])?,
            date_order: named("prepare.date_order", date_order, ["day_first", "month_first"])?,
            numbers: choice("prepare.numbers", numbers, &[("keep", false), ("plain", true)])?,
            decimal_mark: named("prepare.decimal_mark", decimal_mark, ["point", "comma"])?,
            units: choice("prepare.units", units, &[("keep", false), ("symbols", true)])?,
        };
        if !forms.dates && !forms.date_order.is_empty() {
            return Err(range("prepare.date_order", forms.date_order, "dates = \"iso\" with it"));
        }
        if !forms.numbers && !forms.decimal_mark.is_empty() {
            return Err(range("prepare.decimal_mark", forms.decimal_mark, "numbers = \"plain\" with it"));
        }
        Ok(forms)
    }

    /// In the terms of the step.
    pub(crate) fn step(&self) -> data::forms::Forms {
        data::forms::Forms {
            dates: self.dates,
            date_order: match self.date_order.as_str() {
                "day_first" => Some(DateOrder::DayFirst),
                "month_first" => Some(DateOrder::MonthFirst),
                _ => None,
            },
            numbers: self.numbers,
            decimal_mark: match self.decimal_mark.as_str() {
                "point" => Some(DecimalMark::Point),
                "comma" => Some(DecimalMark::Comma),
                _ => None,
            },
            units: self.units,
        }
    }
}

/// Augmented copies of the training records.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct Augment {
    /// Copies of each record; 0: none.
    pub copies: usize,
    /// Share of the words with a typing error; 0: none of this kind.
    pub typos: f64,
    /// Copies in other upper and lower case.
    pub case: bool,
    /// File with terms that stand for each other; empty: none.
    pub synonyms: PathBuf,
    /// File with texts around the record's; empty: none.
    pub templates: PathBuf,
    /// File with the terms of the templates' slots; empty: none.
    pub vocabulary: PathBuf,
}

impl Augment {
    pub(super) fn is_default(&self) -> bool {
        self.copies == 0
    }
}

/// `[prepare.augment]`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct AugmentSection {
    copies: Option<usize>,
    typos: Option<f64>,
    case: Option<bool>,
    synonyms: Option<String>,
    templates: Option<String>,
    vocabulary: Option<String>,
}

/// The keys of [`AugmentSection`].
pub(super) const AUGMENT_KEYS: &[&str] = &["copies", "typos", "case", "synonyms", "templates", "vocabulary"];

impl AugmentSection {
    pub(super) fn resolve(self) -> Result<Augment, SpecError> {
        let path = |given: Option<String>| given.map(PathBuf::from).unwrap_or_default();
        let mut augment = Augment {
            copies: 0,
            typos: fraction("prepare.augment.typos", self.typos.unwrap_or(0.0))?,
            case: self.case.unwrap_or(false),
            synonyms: path(self.synonyms),
            templates: path(self.templates),
            vocabulary: path(self.vocabulary),
        };
        let empty = |path: &PathBuf| path.as_os_str().is_empty();
        let kinds = augment.typos > 0.0 || augment.case || !empty(&augment.synonyms) || !empty(&augment.templates);
        if empty(&augment.templates) && !empty(&augment.vocabulary) {
            let given = augment.vocabulary.display();
            return Err(range("prepare.augment.vocabulary", given, "templates with it, whose slots it fills"));
        }
        if !kinds {
            // An empty table asks for nothing.
            return match self.copies {
                None | Some(0) => Ok(Augment::default()),
                Some(copies) => {
                    Err(range("prepare.augment.copies", copies, "typos, case, synonyms or templates with it: how copies differ"))
                }
            };
        }
        augment.copies = between("prepare.augment.copies", self.copies.unwrap_or(1), 1, COPIES_MAX)?;
        Ok(augment)
    }
}
