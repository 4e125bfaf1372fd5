//! The processes of the image: what buildpacks define, and which of them is the default.

use std::collections::BTreeMap;

use buildpack_api::{Process, ProcessType};

/// The processes of the image: of each type the last one defined.
#[derive(Default)]
pub(super) struct Processes {
    by_type: BTreeMap<ProcessType, (Process, String)>,
    default: Option<ProcessType>,
}

impl Processes {
    /// Adds a buildpack's. Returns the type that was the default and, being defined anew without saying so, is it no
    /// longer.
    pub(super) fn add(&mut self, processes: Vec<Process>, buildpack: &str) -> Option<ProcessType> {
        let mut lost = None;
        for process in processes {
            if process.default {
                self.default = Some(process.r#type.clone());
                lost = None;
            } else if self.default.as_ref() == Some(&process.r#type) {
                lost = self.default.take();
            }
            self.by_type.insert(process.r#type.clone(), (process, buildpack.to_owned()));
        }
        lost
    }

    pub(super) fn into_parts(self) -> (Vec<(Process, String)>, Option<ProcessType>) {
        let plain = |(process, buildpack)| (Process { default: false, ..process }, buildpack);
        (self.by_type.into_values().map(plain).collect(), self.default)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_process_of_a_type_counts() {
        // `web!` is marked as the default
        let of = |words: &str| -> Vec<Process> {
            let process = |word: &str| Process {
                r#type: ProcessType::new(word.trim_end_matches('!')),
                command: vec!["run".to_owned()],
                args: None,
                direct: true,
                default: word.ends_with('!'),
                working_dir: None,
                exec_env: Vec::new(),
            };
            words.split_whitespace().map(process).collect()
        };
        for (sentence, buildpacks, default, lost, all) in [
            ("none is the default", &["web worker"][..], None, None, "web:0 worker:0"),
            ("one is", &["worker web!"], Some("web"), None, "web:0 worker:0"),
            ("the last one marked is", &["web!", "worker!"], Some("worker"), None, "web:0 worker:1"),
            ("a later buildpack replaces", &["a web!", "web!"], Some("web"), None, "a:0 web:1"),
            ("redefined and not marked, it is lost", &["web!", "web"], None, Some("web"), "web:1"),
            ("unless another is marked then", &["web!", "web a!"], Some("a"), None, "a:1 web:1"),
        ] {
            let mut processes = Processes::default();
            let mut last_lost = None;
            for (index, words) in buildpacks.iter().enumerate() {
                last_lost = processes.add(of(words), &index.to_string());
            }
            let (list, found) = processes.into_parts();
            let list: Vec<_> = list.iter().map(|(p, b)| format!("{}:{b}", p.r#type)).collect();
            assert_eq!(list.join(" "), all, "{sentence}");
            assert_eq!(found.as_ref().map(ProcessType::as_str), default, "{sentence}");
            assert_eq!(last_lost.as_ref().map(ProcessType::as_str), lost, "{sentence}");
        }
    }
}
