//! What is wrong with an experiment: where, what was found, what was expected, what to do.

use std::cell::RefCell;
use std::fmt;

use super::node::Place;

/// One fault of a configuration.
#[derive(Clone, Debug)]
pub struct Diagnostic {
    place: Option<Place>,
    key: String,
    message: String,
    /// The variant or cell in which it was found first: "variant `a`".
    of: Option<String>,
    /// In how many variants or cells it was found.
    times: usize,
}

impl Diagnostic {
    /// A fault at `place`; `key` is the dotted path of the key at fault, or empty.
    pub(crate) fn new(place: Option<Place>, key: impl Into<String>, message: String) -> Self {
        // Messages of other libraries may have several lines.
        let lines = message.lines().map(str::trim);
        let message = lines
            .filter(|line| !line.is_empty())
            .collect::<Vec<_>>()
            .join(" ");
        Self {
            place,
            key: key.into(),
            message,
            of: None,
            times: 1,
        }
    }

    /// The dotted path of the key at fault, e.g. `local.learning_rate`; empty for a syntax error.
    #[must_use]
    pub fn key(&self) -> &str {
        &self.key
    }

    /// What was found, what was expected, and what to do.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.message
    }

    /// Line and column, both from 1, where the fault is in a file. Columns count characters.
    #[must_use]
    pub fn line_column(&self) -> Option<(usize, usize)> {
        let place = self.place.as_ref()?;
        place
            .source
            .is_file
            .then(|| line_column(&place.source.text, place.span.start))
    }

    /// The first line of the report: `FILE:LINE:COLUMN: key: message`.
    #[must_use]
    pub fn headline(&self) -> String {
        let mut line = match (&self.place, self.line_column()) {
            (Some(place), Some((line, column))) => {
                format!("{}:{line}:{column}: ", place.source.name)
            }
            (Some(place), None) => format!("{}: ", place.source.name),
            (None, _) => String::new(),
        };
        if let Some(of) = &self.of {
            line.push_str(&format!("{of}: "));
        }
        if !self.key.is_empty() {
            line.push_str(&format!("`{}`: ", self.key));
        }
        line.push_str(&self.message);
        line
    }

    fn same_fault(&self, other: &Self) -> bool {
        let place = |fault: &Self| {
            fault
                .place
                .as_ref()
                .map(|place| (place.source.name.clone(), place.span.clone()))
        };
        self.message == other.message && self.key == other.key && place(self) == place(other)
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.headline())?;
        let Some(place) = &self.place else {
            return Ok(());
        };
        let text = &place.source.text;
        let (number, column) = line_column(text, place.span.start);
        let Some(line) = text.lines().nth(number - 1) else {
            return Ok(());
        };
        let gutter = if place.source.is_file {
            number.to_string()
        } else {
            String::new()
        };
        let blank = " ".repeat(gutter.len());
        let rest = line.chars().count().saturating_sub(column - 1);
        let width = text
            .get(place.span.clone())
            .and_then(|found| found.lines().next())
            .map_or(1, |found| found.chars().count())
            .clamp(1, rest.max(1));
        let indent: String = line
            .chars()
            .take(column - 1)
            .map(|c| if c == '\t' { '\t' } else { ' ' })
            .collect();
        write!(
            f,
            "\n {blank} |\n {gutter} | {line}\n {blank} | {indent}{}",
            "^".repeat(width)
        )
    }
}

fn line_column(text: &str, offset: usize) -> (usize, usize) {
    let before = text.get(..offset).unwrap_or(text);
    let line = before.matches('\n').count() + 1;
    let start = before.rfind('\n').map_or(0, |at| at + 1);
    (line, before[start..].chars().count() + 1)
}

/// All faults of a configuration, in the order of their places.
#[derive(Debug)]
pub struct ConfigErrors(pub(crate) Vec<Diagnostic>);

impl ConfigErrors {
    /// The faults; at least one.
    #[must_use]
    pub fn faults(&self) -> &[Diagnostic] {
        &self.0
    }

    /// The faults of several of `total` cells of a sweep, each once; nothing where there are none. One
    /// that not all of them have is said to be of the first that has it.
    pub(crate) fn of_cells(found: Vec<(String, Self)>, total: usize) -> Option<Self> {
        let all = Diagnostics::default();
        for (label, faults) in found {
            all.within_cell(&label);
            for fault in faults.0 {
                all.add(fault);
            }
        }
        all.forget_variant_of_what_all_share(total);
        all.finish()
    }
}

impl std::error::Error for ConfigErrors {}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, fault) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str("\n\n")?;
            }
            fault.fmt(f)?;
        }
        Ok(())
    }
}

/// Collects faults, so that all of a file are reported at once.
#[derive(Debug, Default)]
pub(crate) struct Diagnostics {
    list: RefCell<Vec<Diagnostic>>,
    of: RefCell<Option<String>>,
}

impl Diagnostics {
    /// Faults added from now on are those of a variant.
    pub(crate) fn within_variant(&self, variant: Option<&str>) {
        *self.of.borrow_mut() = variant.map(|name| format!("variant `{name}`"));
    }

    /// Faults added from now on are those of a cell of a sweep.
    pub(crate) fn within_cell(&self, label: &str) {
        let of = match label {
            "" => None,
            label => Some(format!("cell `{label}`")),
        };
        *self.of.borrow_mut() = of;
    }

    /// Adds a fault, unless it is known (from another variant).
    pub(crate) fn add(&self, mut fault: Diagnostic) {
        let mut list = self.list.borrow_mut();
        if let Some(known) = list.iter_mut().find(|known| known.same_fault(&fault)) {
            known.times += 1;
            return;
        }
        fault.of.clone_from(&self.of.borrow());
        list.push(fault);
    }

    /// A fault that all of the variants have is not one of a variant.
    pub(crate) fn forget_variant_of_what_all_share(&self, variants: usize) {
        for fault in self.list.borrow_mut().iter_mut() {
            if fault.times >= variants {
                fault.of = None;
            }
        }
    }

    /// How often a fault was added.
    pub(crate) fn len(&self) -> usize {
        self.list.borrow().iter().map(|fault| fault.times).sum()
    }

    /// Everything that was found, or `None` when nothing was.
    pub(crate) fn finish(self) -> Option<ConfigErrors> {
        let mut list = self.list.into_inner();
        list.sort_by_key(|fault| {
            fault.place.as_ref().map_or((2, 0), |place| {
                (usize::from(!place.source.is_file), place.span.start)
            })
        });
        (!list.is_empty()).then_some(ConfigErrors(list))
    }
}

/// `; did you mean ...?` for the nearest of `names`, or the list of all.
pub(crate) fn suggest<'a>(found: &str, names: impl IntoIterator<Item = &'a str>) -> String {
    let names: Vec<&str> = names.into_iter().collect();
    let wanted = found.to_lowercase().replace('_', "-");
    let nearest = names
        .iter()
        .map(|name| {
            let plain = name.to_lowercase().replace('_', "-");
            (strsim::damerau_levenshtein(&wanted, &plain), *name)
        })
        .min_by_key(|(distance, _)| *distance)
        .filter(|(distance, name)| *distance <= (name.len().max(found.len()) / 3).max(1));
    match nearest {
        Some((_, name)) => format!("did you mean `{name}`?"),
        None if names.is_empty() => "no key is expected here; remove it".to_owned(),
        None => format!("expected one of {}", names.join(", ")),
    }
}
