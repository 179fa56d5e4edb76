//! The modules of `src/` build on one another without circles: each can be read, and changed, after those that it uses
//! alone.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// A module's path from the crate's root, such as `["model", "file"]`.
type Module = Vec<String>;

/// What one file says.
#[derive(Default)]
struct Source {
    /// The modules that it declares.
    children: BTreeSet<String>,
    /// The names that it hands on from elsewhere, and where they come from.
    reexports: BTreeMap<String, Vec<String>>,
    /// Every path that it names, from `crate`, `super`, `self` or a module of its own on.
    paths: Vec<Vec<String>>,
}

/// All modules under `root`, but for tests.
fn read(root: &Path) -> BTreeMap<Module, Source> {
    let mut all = BTreeMap::new();
    let mut folders = vec![root.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") && path != root.join("main.rs") {
                let text = std::fs::read_to_string(&path).unwrap();
                all.insert(module(root, &path), source(&text));
            }
        }
    }
    all
}

fn module(root: &Path, path: &Path) -> Module {
    let name: PathBuf = path.strip_prefix(root).unwrap().with_extension("");
    let mut parts: Module = name.iter().map(|p| p.to_string_lossy().into_owned()).collect();
    if parts.last().is_some_and(|last| last == "mod" || last == "lib") {
        parts.pop();
    }
    parts
}

fn source(text: &str) -> Source {
    let code = text.split("\nmod tests {").next().unwrap();
    let code: String = code.lines().map(|l| l.split("//").next().unwrap_or_default()).collect::<Vec<_>>().join("\n");
    let mut source = Source::default();
    for statement in code.split([';', '{', '}']).filter_map(|s| s.trim().rsplit_once("mod ")) {
        let (before, name) = statement;
        if (before.is_empty() || before.ends_with([' ', '\n', ']']))
            && name.chars().all(|c| c.is_alphanumeric() || c == '_')
        {
            source.children.insert(name.into());
        }
    }
    let mut rest = code.as_str();
    let mut others = String::new();
    while let Some(at) = rest.find("use ") {
        let (before, after) = rest.split_at(at);
        let line = before.rsplit('\n').next().unwrap_or_default();
        let (tree, tail) = after[4..].split_once(';').unwrap_or((&after[4..], ""));
        others += before;
        rest = tail;
        match line.trim() {
            "" => leaves(tree).into_iter().for_each(|path| source.paths.push(path)),
            "pub" | "pub(crate)" | "pub(super)" => {
                for path in leaves(tree) {
                    source.reexports.insert(path.last().unwrap().clone(), path);
                }
            }
            _ => {}
        }
    }
    others += rest;
    // paths within the code
    for word in others.split(|c: char| !(c.is_alphanumeric() || c == '_' || c == ':')) {
        let parts: Vec<String> = word.split("::").map(String::from).collect();
        if parts.len() > 1 && (["crate", "super", "self"].contains(&&*parts[0]) || source.children.contains(&parts[0]))
        {
            source.paths.push(parts);
        }
    }
    source
}

/// Every path of a tree of imports: `a::{b, c::d}` has two.
fn leaves(tree: &str) -> Vec<Vec<String>> {
    let tree = tree.trim();
    let Some((before, inner)) = tree.split_once('{') else {
        let path = tree.split(" as ").next().unwrap().trim();
        return vec![
            path.split("::").map(|p| p.trim().to_string()).filter(|p| p != "self" || path == "self").collect(),
        ];
    };
    let inner = inner.strip_suffix('}').unwrap_or(inner);
    let (mut all, mut depth, mut start) = (Vec::new(), 0, 0);
    for (i, c) in inner.char_indices().chain([(inner.len(), ',')]) {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                if !inner[start..i].trim().is_empty() {
                    all.extend(leaves(&format!("{before}{}", inner[start..i].trim())));
                }
                start = i + 1;
            }
            _ => {}
        }
    }
    all
}

/// The module in which what `path` names, as `from` says it, is defined.
fn defined(all: &BTreeMap<Module, Source>, from: &Module, path: &[String]) -> Option<Module> {
    let mut at = match path.first()?.as_str() {
        "crate" => Vec::new(),
        "super" => from[..from.len().checked_sub(1)?].to_vec(),
        "self" => from.clone(),
        first if all.get(from)?.children.contains(first) => [from.as_slice(), &[first.to_string()]].concat(),
        _ => return None,
    };
    for (i, part) in path.iter().enumerate().skip(1) {
        let child = [at.as_slice(), std::slice::from_ref(part)].concat();
        if part == "super" {
            at.pop();
        } else if all.contains_key(&child) {
            at = child;
        } else if let Some(elsewhere) = all.get(&at)?.reexports.get(part) {
            let whole = [elsewhere.as_slice(), &path[i + 1..]].concat();
            return defined(all, &at, &whole).or(Some(at));
        } else {
            break;
        }
    }
    Some(at)
}

/// The modules that can be reached from themselves, in circles that share no module with others.
fn circles(all: &BTreeMap<Module, Source>) -> Vec<BTreeSet<String>> {
    let uses: BTreeMap<&Module, BTreeSet<Module>> = all
        .iter()
        .map(|(module, source)| {
            let used = source.paths.iter().filter_map(|path| defined(all, module, path));
            (module, used.filter(|m| m != module && all.contains_key(m)).collect())
        })
        .collect();
    let reach = |from: &Module| {
        let (mut seen, mut next) = (BTreeSet::new(), vec![from.clone()]);
        while let Some(module) = next.pop() {
            next.extend(uses[&module].iter().filter(|m| seen.insert((*m).clone())).cloned());
        }
        seen
    };
    let reached: BTreeMap<&Module, BTreeSet<Module>> = all.keys().map(|m| (m, reach(m))).collect();
    let name = |m: &Module| if m.is_empty() { "lib".into() } else { m.join("::") };
    let found: BTreeSet<BTreeSet<String>> = all
        .keys()
        .map(|m| reached[m].iter().filter(|other| reached[other].contains(m)).map(name).collect())
        .filter(|circle: &BTreeSet<String>| !circle.is_empty())
        .collect();
    found.into_iter().collect()
}

#[test]
fn modules_build_on_one_another_without_circles() {
    let all = read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"));
    assert!(all.len() > 40, "{} modules", all.len());
    let edges: usize = all.values().map(|s| s.paths.len()).sum();
    assert!(edges > 200, "{edges} paths");
    let found = circles(&all);
    assert!(found.is_empty(), "{found:#?}");
}

#[test]
fn a_circle_is_found_through_what_is_handed_on() {
    let all: BTreeMap<Module, Source> = [
        ("", "mod a;\npub mod b;\npub use a::Thing;"),
        ("a", "use crate::b::{c::Other, d};\npub struct Thing;"),
        ("b", "mod c;\nmod d;\npub use c::Other;\n#[cfg(test)]\nmod tests { use crate::b::d; }"),
        ("b::c", "pub struct Other(crate::Thing);"),
        ("b::d", "//! use crate::a;\nuse std::path::Path;"),
    ]
    .map(|(name, text)| (name.split("::").filter(|p| !p.is_empty()).map(String::from).collect(), source(text)))
    .into();
    assert_eq!(circles(&all), [["a", "b::c"].map(String::from).into()]);
}
