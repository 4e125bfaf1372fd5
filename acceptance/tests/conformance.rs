//! Keeps docs/conformance.md true: what its pages name exists, every rule has a test or a reason, and none is lost.
#![allow(clippy::unwrap_used, reason = "a check panics where something is wrong")]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use acceptance::run::workspace;

/// Rules that the pages must have at least: for each family its last number.
const FAMILIES: &str = include_str!("conformance/families.txt");

/// A line of a table.
struct Rule {
    id: String,
    /// `file::name`
    code: Vec<String>,
    tests: Vec<String>,
    /// Rules that have the tests.
    see: Vec<String>,
    reason: bool,
}

fn pages() -> Vec<(String, String)> {
    let docs = workspace().join("docs");
    let mut files = vec![docs.join("conformance.md")];
    files.extend(fs::read_dir(docs.join("conformance")).unwrap().map(|entry| entry.unwrap().path()));
    files.iter().map(|file| (file.display().to_string(), fs::read_to_string(file).unwrap())).collect()
}

/// The `file::name`s between backticks.
fn names_in(cell: &str) -> Vec<String> {
    cell.split('`').skip(1).step_by(2).filter(|text| text.contains(".rs::")).map(str::to_owned).collect()
}

fn rules() -> Vec<Rule> {
    let mut rules = Vec::new();
    for (page, text) in pages() {
        for line in text.lines().filter(|line| line.starts_with("| ")) {
            let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
            let is_rule =
                cells[0].split_once('-').is_some_and(|(family, _)| family.bytes().all(|b| b.is_ascii_uppercase()));
            if !is_rule || cells.len() < 4 {
                continue;
            }
            assert_eq!(cells.len(), 5, "{page}: {line}");
            let see = cells[3].split("<br>").filter_map(|part| part.strip_prefix("see "));
            rules.push(Rule {
                id: cells[0].to_owned(),
                code: names_in(cells[2]),
                tests: names_in(cells[3]),
                see: see.map(str::to_owned).collect(),
                reason: cells[3].strip_prefix("reason: ").is_some_and(|reason| reason.len() > 10),
            });
        }
    }
    rules
}

/// The text of a file that the pages name, read once.
struct Sources(BTreeMap<String, String>);

impl Sources {
    fn text(&mut self, file: &str) -> &str {
        self.0.entry(file.to_owned()).or_insert_with(|| {
            fs::read_to_string(workspace().join(file)).unwrap_or_else(|e| panic!("the pages name {file}: {e}"))
        })
    }

    /// What is before each function of this name.
    fn before(&mut self, name: &str) -> Vec<&str> {
        let (file, function) = name.split_once("::").unwrap();
        let declaration = format!("fn {function}");
        let text = self.text(file);
        let is_whole = |at: &usize| text[at + declaration.len()..].starts_with(['(', '<']);
        text.match_indices(&declaration).map(|(at, _)| at).filter(is_whole).map(|at| &text[..at]).collect()
    }

    fn has_function(&mut self, name: &str) -> bool {
        !self.before(name).is_empty()
    }

    fn has_test(&mut self, name: &str) -> bool {
        let attributes = |before: &str| {
            let lines = before.trim_end().lines().rev().map(str::trim).map(str::to_owned);
            lines.take_while(|line| line.starts_with('#') || line.starts_with("//")).collect::<Vec<_>>()
        };
        self.before(name).into_iter().any(|before| attributes(before).iter().any(|line| line == "#[test]"))
    }
}

#[test]
fn what_the_pages_name_exists() {
    let mut sources = Sources(BTreeMap::new());
    let (mut code, mut tests) = (BTreeSet::new(), BTreeSet::new());
    for rule in rules() {
        for name in &rule.code {
            assert!(sources.has_function(name), "{}: there is no function {name}", rule.id);
            code.insert(name.clone());
        }
        for name in &rule.tests {
            assert!(sources.has_test(name), "{}: {name} is no test", rule.id);
            tests.insert(name.clone());
        }
    }
    println!("{} functions and {} tests are named", code.len(), tests.len());
    assert!(code.len() > 200 && tests.len() > 300, "{} functions, {} tests", code.len(), tests.len());
}

#[test]
fn every_rule_has_a_test_or_a_reason() {
    let rules = rules();
    let tested: BTreeSet<&str> = rules.iter().filter(|r| !r.tests.is_empty()).map(|r| r.id.as_str()).collect();
    let mut reasons = Vec::new();
    for rule in &rules {
        for see in &rule.see {
            assert!(tested.contains(see.as_str()), "{} looks at {see}, which has no test", rule.id);
        }
        let proven = !rule.tests.is_empty() || !rule.see.is_empty();
        assert!(proven || rule.reason, "{} has neither test nor reason", rule.id);
        if !proven {
            reasons.push(rule.id.as_str());
        }
    }
    println!(
        "{} rules: {} tested, {} with a reason: {}",
        rules.len(),
        rules.len() - reasons.len(),
        reasons.len(),
        reasons.join(" ")
    );
}

#[test]
fn no_rule_is_lost() {
    let mut ids = BTreeSet::new();
    for rule in rules() {
        assert!(ids.insert(rule.id.clone()), "{} is there twice", rule.id);
    }
    for family in FAMILIES.lines().filter(|line| !line.starts_with('#')) {
        let (name, numbers) = family.split_once(' ').unwrap();
        let numbers = numbers.split(' ').map(|range| range.split_once("..").unwrap());
        let numbers = numbers.flat_map(|(a, b)| a.parse::<u32>().unwrap()..=b.parse().unwrap());
        for number in numbers {
            assert!(ids.remove(&format!("{name}-{number}")), "{name}-{number} is lost");
        }
    }
    ids.remove("IMG-EXTRACT");
    assert_eq!(ids, BTreeSet::new(), "are not in {}", Path::new("conformance/families.txt").display());
}

#[test]
fn links_between_the_pages_lead_somewhere() {
    for (page, text) in pages() {
        for link in text.split("](").skip(1).filter_map(|rest| rest.split_once(')')).map(|(link, _)| link) {
            let there = link.starts_with("http") || Path::new(&page).parent().unwrap().join(link).is_file();
            assert!(there, "{page} links to {link}");
        }
    }
}
