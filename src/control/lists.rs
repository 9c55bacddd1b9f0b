//! Files of networks that change: they are looked at twice a second, and newer ones are put in use beside
//! everything that runs. A bad one changes nothing, and its line is told.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use ipnet::IpNet;

use super::core::{Core, Event};
use super::file::{Identity, identity};
use super::warnings::Kind;
use crate::config::{self, Config, ListProblem};
use crate::limit::lists::Slot;

/// A file of networks, as it was seen last.
#[derive(Debug)]
pub(super) struct File {
    path: PathBuf,
    settled: Option<Identity>,
    moving: Option<Identity>,
    gone: bool,
    /// The configuration that it was last looked at for.
    config: std::sync::Weak<Config>,
}

/// What is new of a file.
pub(super) type News = (PathBuf, Result<Arc<[IpNet]>, ListProblem>);

impl File {
    fn of(path: &Path) -> File {
        let path = path.to_owned();
        File { path, settled: None, moving: None, gone: false, config: std::sync::Weak::new() }
    }

    /// Another configuration brings what was read with it, which is older where an earlier one is put back: the
    /// file is read again.
    fn serve(&mut self, config: &Arc<Config>) {
        if !std::ptr::eq(self.config.as_ptr(), Arc::as_ptr(config)) {
            (self.settled, self.moving, self.config) = (None, None, Arc::downgrade(config));
        }
    }

    /// Looks once. A change counts when the file has been the same for two looks: it may be half written.
    fn look(&mut self) -> Option<Result<Arc<[IpNet]>, ListProblem>> {
        let found = match identity(&self.path) {
            Ok(found) => found,
            Err(error) => {
                self.settled = None;
                let said = std::mem::replace(&mut self.gone, true);
                let what = format!("it cannot be read: {error}");
                return (!said).then_some(Err(ListProblem { line: None, what }));
            }
        };
        if self.settled.as_ref() == Some(&found) {
            return None;
        }
        if self.moving.as_ref() != Some(&found) {
            self.moving = Some(found);
            return None;
        }
        (self.settled, self.moving, self.gone) = (Some(found), None, false);
        Some(config::read_list(&self.path))
    }
}

/// Those in use; what was seen of each before is kept.
fn follow(files: &mut Vec<File>, slots: &[Arc<Slot>], config: &Arc<Config>) {
    files.retain(|file| slots.iter().any(|slot| slot.path == file.path));
    for slot in slots {
        if !files.iter().any(|file| file.path == slot.path) {
            files.push(File::of(&slot.path));
        }
    }
    files.iter_mut().for_each(|file| file.serve(config));
}

impl Core {
    /// Looks at all files, on a blocking thread: they may be large, or on a network.
    pub(super) fn look_at_lists(&mut self) {
        let snapshot = self.inner.snapshot.load_full();
        let used = |subject: &str| snapshot.lists.iter().any(|slot| shown(&slot.path) == subject);
        self.warnings.retain(Kind::ListFile, used);
        if snapshot.lists.is_empty() {
            return;
        }
        // None while a look is under way.
        let Some(mut files) = self.lists.take() else { return };
        follow(&mut files, &snapshot.lists, &snapshot.config);
        let events = self.inner.events.clone();
        tokio::task::spawn_blocking(move || {
            let look = |file: &mut File| Some((file.path.clone(), file.look()?));
            let news = files.iter_mut().filter_map(look).collect();
            let _ = events.send(Event::Lists(files, news));
        });
    }

    /// Puts what is new in use; what is bad changes nothing.
    pub(super) fn lists_seen(&mut self, files: Vec<File>, news: Vec<News>) {
        self.lists = Some(files);
        let snapshot = self.inner.snapshot.load_full();
        for (path, news) in news {
            let Some(slot) = snapshot.lists.iter().find(|slot| slot.path == path) else { continue };
            match news {
                Ok(networks) => {
                    self.warnings.settle(Kind::ListFile, &shown(&path));
                    if slot.put(&networks) {
                        let (file, networks) = (shown(&path), networks.len());
                        tracing::info!(target: "cobalance::lists", file, networks,
                            "a newer list is in use");
                    }
                }
                Err(problem) => {
                    let message = format!(
                        "list `{}` cannot be used ({problem}); what was read of it before stays in use",
                        shown(&path)
                    );
                    self.warn(Kind::ListFile, &shown(&path), message);
                }
            }
        }
    }
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_read_again_for_another_configuration() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("deny");
        std::fs::write(&path, "192.0.2.1\n").unwrap();
        let source = config::Source {
            name: "x.toml".into(),
            text: "[[listener]]\nbind = \"0.0.0.0:80\"\n[upstream.u]\nnodes = [\"a:1\"]\n".into(),
        };
        let config = || Arc::new(config::load(&source, &|_| None).map_err(drop).unwrap().0);
        let slots = [Arc::new(Slot::new(&path, &[]))];
        let (mut files, first, second) = (Vec::new(), config(), config());
        let mut looks = |config: &Arc<Config>| {
            follow(&mut files, &slots, config);
            files[0].look().is_some()
        };
        assert_eq!([0; 4].map(|_| looks(&first)), [false, true, false, false]);
        assert_eq!([0; 3].map(|_| looks(&second)), [false, true, false]);
    }
}
