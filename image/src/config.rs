//! The image config: known fields, and every unknown one kept, in one canonical JSON form, that of the Go structs
//! most tools write it from, so that the same image gets the same ID whoever writes it.
//! oci-spec's type cannot serve: it loses fields of base images, and its maps have no fixed order.

use std::collections::BTreeMap;

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::{Digest, Error, Result, json};

/// An image's config file.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Config {
    pub architecture: String,
    pub os: String,
    pub os_version: Option<String>,
    pub variant: Option<String>,
    pub author: Option<String>,
    /// RFC 3339.
    pub created: Option<String>,
    pub history: Vec<History>,
    pub diff_ids: Vec<Digest>,
    /// `config`: what a container is started with.
    pub env: Vec<String>,
    pub entrypoint: Vec<String>,
    pub cmd: Vec<String>,
    pub labels: BTreeMap<String, String>,
    pub user: String,
    pub working_dir: String,
    /// Everything else of `config`, as it was.
    pub rest_of_config: Map<String, Value>,
    /// Everything else at the top level, as it was (`container` is dropped).
    pub rest: Map<String, Value>,
}

/// One step of an image's history.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct History {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub author: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created_by: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub comment: Option<String>,
    #[serde(default, deserialize_with = "null_is_false", skip_serializing_if = "std::ops::Not::not")]
    pub empty_layer: bool,
}

fn null_is_false<'de, D: serde::Deserializer<'de>>(d: D) -> std::result::Result<bool, D::Error> {
    Ok(<Option<bool> as serde::Deserialize>::deserialize(d)?.unwrap_or_default())
}

/// The keys of `config` in the order they are written in.
const ORDER: [&str; 24] = [
    "AttachStderr",
    "AttachStdin",
    "AttachStdout",
    "Cmd",
    "Healthcheck",
    "Domainname",
    "Entrypoint",
    "Env",
    "Hostname",
    "Image",
    "Labels",
    "OnBuild",
    "OpenStdin",
    "StdinOnce",
    "Tty",
    "User",
    "Volumes",
    "WorkingDir",
    "ExposedPorts",
    "ArgsEscaped",
    "NetworkDisabled",
    "MacAddress",
    "StopSignal",
    "Shell",
];
const HEALTHCHECK_ORDER: [&str; 5] = ["Test", "Interval", "Timeout", "StartPeriod", "Retries"];

impl Config {
    /// Docker's and OCI's configs alike; `null` stands for an absent field.
    ///
    /// # Errors
    /// [`Error::Corrupt`] naming the field; the caller adds the image.
    pub fn parse(text: &[u8]) -> Result<Self> {
        let mut top: Map<String, Value> =
            serde_json::from_slice(text).map_err(|e| Error::Corrupt(format!("parse image config: {e}")))?;
        top.remove("container");
        let mut rootfs: Map<String, Value> = take(&mut top, "rootfs")?;
        let mut inner: Map<String, Value> = take(&mut top, "config")?;
        Ok(Self {
            architecture: take(&mut top, "architecture")?,
            os: take(&mut top, "os")?,
            os_version: take_filled(&mut top, "os.version")?,
            variant: take_filled(&mut top, "variant")?,
            author: take_filled(&mut top, "author")?,
            created: take_filled(&mut top, "created")?,
            history: take(&mut top, "history")?,
            diff_ids: take(&mut rootfs, "diff_ids")?,
            env: take(&mut inner, "Env")?,
            entrypoint: take(&mut inner, "Entrypoint")?,
            cmd: take(&mut inner, "Cmd")?,
            labels: take(&mut inner, "Labels")?,
            user: take(&mut inner, "User")?,
            working_dir: take(&mut inner, "WorkingDir")?,
            rest_of_config: inner,
            rest: top,
        })
    }

    /// Same value, same bytes: Go's key order, compact, `<>&` escaped as Go escapes them, labels sorted.
    pub fn to_json(&self) -> Vec<u8> {
        let mut out = json::Object::default();
        out.field("architecture", &self.architecture);
        out.field_if(self.author.is_some(), "author", &self.author);
        out.field_if(self.created.is_some(), "created", &self.created);
        let known = ["docker_version", "os.features"];
        let rest = |out: &mut json::Object, key: &str| {
            if let Some(value) = self.rest.get(key).filter(|value| !json::is_empty(value)) {
                out.field(key, value);
            }
        };
        rest(&mut out, "docker_version");
        out.field_if(!self.history.is_empty(), "history", &self.history);
        out.field("os", &self.os);
        let mut rootfs = json::Object::default();
        rootfs.field("type", "layers");
        rootfs.field("diff_ids", &self.diff_ids);
        out.raw("rootfs", &rootfs.end());
        out.raw("config", &self.inner_json());
        out.field_if(self.os_version.is_some(), "os.version", &self.os_version);
        out.field_if(self.variant.is_some(), "variant", &self.variant);
        rest(&mut out, "os.features");
        for (key, value) in self.rest.iter().filter(|(key, _)| !known.contains(&key.as_str()) && *key != "container") {
            out.field(key, value);
        }
        out.end().into_bytes()
    }

    fn inner_json(&self) -> String {
        let mut out = json::Object::default();
        for key in ORDER {
            match key {
                "Cmd" => out.field_if(!self.cmd.is_empty(), key, &self.cmd),
                "Entrypoint" => out.field_if(!self.entrypoint.is_empty(), key, &self.entrypoint),
                "Env" => out.field_if(!self.env.is_empty(), key, &self.env),
                "Labels" => out.field_if(!self.labels.is_empty(), key, &self.labels),
                "User" => out.field_if(!self.user.is_empty(), key, &self.user),
                "WorkingDir" => out.field_if(!self.working_dir.is_empty(), key, &self.working_dir),
                _ => match self.rest_of_config.get(key) {
                    Some(Value::Object(check)) if key == "Healthcheck" => out.raw(key, &ordered(check)),
                    Some(value) if !json::is_empty(value) => out.field(key, value),
                    _ => {}
                },
            }
        }
        for (key, value) in self.rest_of_config.iter().filter(|(key, _)| !ORDER.contains(&key.as_str())) {
            out.field(key, value);
        }
        out.end()
    }

    /// The value of a label.
    pub fn label(&self, key: &str) -> Option<&str> {
        self.labels.get(key).map(String::as_str)
    }

    /// The value of an environment variable.
    pub fn env_var(&self, name: &str) -> Option<&str> {
        self.env.iter().rev().find_map(|e| e.split_once('=').filter(|(k, _)| *k == name).map(|(_, v)| v))
    }

    /// Replaces the variable where it stands, or appends it.
    pub fn set_env(&mut self, name: &str, value: &str) {
        let entry = format!("{name}={value}");
        let is_it = |e: &String| e.split_once('=').is_some_and(|(k, _)| k == name);
        let Some(first) = self.env.iter().position(is_it) else {
            self.env.push(entry);
            return;
        };
        self.env[first] = entry;
        let mut index = 0;
        self.env.retain(|e| {
            index += 1;
            index - 1 <= first || !is_it(e)
        });
    }

    /// Sets the time of the image and of every step of its history (RFC 3339).
    pub fn stamp(&mut self, created: &str) {
        self.created = Some(created.to_owned());
        for step in &mut self.history {
            step.created = Some(created.to_owned());
        }
        self.rest.remove("container");
    }
}

fn ordered(check: &Map<String, Value>) -> String {
    let mut out = json::Object::default();
    for key in HEALTHCHECK_ORDER {
        if let Some(value) = check.get(key).filter(|value| !json::is_empty(value)) {
            out.field(key, value);
        }
    }
    for (key, value) in check.iter().filter(|(key, _)| !HEALTHCHECK_ORDER.contains(&key.as_str())) {
        out.field(key, value);
    }
    out.end()
}

fn take<T: DeserializeOwned + Default>(map: &mut Map<String, Value>, key: &str) -> Result<T> {
    match map.remove(key) {
        None | Some(Value::Null) => Ok(T::default()),
        Some(value) => {
            serde_json::from_value(value).map_err(|e| Error::Corrupt(format!("parse image config: {key}: {e}")))
        }
    }
}

fn take_filled(map: &mut Map<String, Value>, key: &str) -> Result<Option<String>> {
    Ok(take::<Option<String>>(map, key)?.filter(|text| !text.is_empty()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round(text: &str) -> String {
        String::from_utf8(Config::parse(text.as_bytes()).unwrap().to_json()).unwrap()
    }

    /// The first line was written by Go from the second.
    #[test]
    fn as_go_writes_it() {
        let id = Digest::of(b"");
        let go = format!(
            r#"{{"architecture":"amd64","author":"a\u003cb\u003e\u0026\u2028","created":"2020-01-01T00:00:00Z","docker_version":"20.10","history":[{{"author":"x","created":"2020-01-01T00:00:00Z","created_by":"/bin/sh -c #(nop) \u0026\u0026","comment":"c","empty_layer":true}}],"os":"linux","rootfs":{{"type":"layers","diff_ids":["{id}"]}},"config":{{"AttachStdin":true,"Cmd":["/bin/bash"],"Healthcheck":{{"Test":["CMD","x"],"Interval":30000000000,"Retries":3}},"Entrypoint":["/e"],"Env":["PATH=/bin","A=é\u001f\t"],"Hostname":"h","Labels":{{"a":"1","b":"\u003c"}},"OnBuild":["RUN x"],"User":"cnb","Volumes":{{"/data":{{}}}},"WorkingDir":"/w","ExposedPorts":{{"8080/tcp":{{}}}},"StopSignal":"SIGINT","Shell":["/bin/bash","-c"]}},"os.version":"10.0","variant":"v8","os.features":["f"]}}"#
        );
        assert_eq!(round(&go), go);
        let mixed = go.replacen("{\"architecture\":\"amd64\",", "{\"container\":\"c0ffee\",", 1).replacen(
            "\"os\":\"linux\"",
            "\"os\" : \"linux\", \"architecture\":\"amd64\"",
            1,
        );
        assert_eq!(round(&mixed), go);
    }

    #[test]
    fn null_and_empty_values_are_absent_ones() {
        let text = r#"{"architecture":"arm64","os":"linux","author":"","history":null,"container_config":null,
            "config":{"Cmd":null,"Env":null,"Labels":null,"Entrypoint":null,"OnBuild":null,"Tty":false,"User":null,
            "Volumes":{}},"rootfs":{"type":"layers","diff_ids":null}}"#;
        assert_eq!(
            round(text),
            r#"{"architecture":"arm64","os":"linux","rootfs":{"type":"layers","diff_ids":[]},"config":{},"container_config":null}"#
        );
        assert_eq!(round("{}"), r#"{"architecture":"","os":"","rootfs":{"type":"layers","diff_ids":[]},"config":{}}"#);
    }

    #[test]
    fn unknown_fields_are_kept() {
        let text = r#"{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[]},"config":{"Memory":0,"Zz":{"a":[],"b":1}},"moby.buildkit.buildinfo.v1":"eyJ9","x":18446744073709551615}"#;
        assert_eq!(round(text), text);
    }

    #[test]
    fn errors_name_the_field() {
        let error = Config::parse(br#"{"config":{"Env":"PATH=/bin"}}"#).unwrap_err().to_string();
        assert!(error.contains("Env"), "{error}");
        assert!(Config::parse(b"").is_err());
    }

    #[test]
    fn environment() {
        let mut config = Config { env: ["A=1", "PATH=/a=b", "A=2"].map(str::to_owned).to_vec(), ..Config::default() };
        assert_eq!(config.env_var("PATH"), Some("/a=b"));
        assert_eq!(config.env_var("A"), Some("2"));
        assert_eq!(config.env_var("B"), None);
        config.set_env("A", "3");
        config.set_env("B", "x=y");
        assert_eq!(config.env, ["A=3", "PATH=/a=b", "B=x=y"]);
    }

    #[test]
    fn stamp_sets_every_time() {
        let text = br#"{"container":"c","created":"2020-01-01T00:00:00Z","history":[{"created_by":"x"},{}]}"#;
        let mut config = Config::parse(text).unwrap();
        config.stamp("1980-01-01T00:00:01Z");
        let written = String::from_utf8(config.to_json()).unwrap();
        assert_eq!(written.matches("1980-01-01T00:00:01Z").count(), 3);
        assert!(!written.contains("\"container\""));
    }
}
