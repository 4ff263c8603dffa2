//! Your own pictures in a folder.

use fl_core::{InputSpec, TargetSpec};

use crate::error::DatasetError;
use crate::read::folder::{Folder, FolderLayout, Pictures};
use crate::sets::{Loaded, Material, Owners, Request, Set, keys, normalise};
use crate::store::{ByteRows, Inputs, Store, Targets};

/// `[dataset] name = "images"`.
pub(super) static SET: Set = Set {
    name: "images",
    summary: "your own PNG pictures in folders of classes, or of clients and classes",
    keys: keys! {
        path: "the folder",
        layout: "classes (default), clients-classes or manifest",
        normalise: "unit (default), centred, standard or raw",
        feature_noise: "noise that grows from client to client",
    },
    entry: None,
    load,
};

fn load(request: &Request<'_>) -> Result<Loaded, DatasetError> {
    let config = request.config;
    let path = config.need(config.path.as_ref(), "path", "the folder of the pictures")?;
    let layout = config.layout.unwrap_or(FolderLayout::Classes);
    let Folder {
        shape,
        classes,
        clients,
        train,
        test,
    } = Folder::read(path, layout)?;
    let what = path.display().to_string();
    let store = |pictures: Pictures| {
        Store::new(
            &what,
            InputSpec::Real(shape.to_vec()),
            TargetSpec::Class {
                classes: classes.len(),
            },
            Inputs::Bytes(ByteRows {
                data: pictures.data,
                channels: shape[2],
                zero: 0,
                largest: 255,
            }),
            Targets::classes(pictures.labels, classes.len()),
        )
    };
    let groups = (!clients.is_empty()).then(|| Owners {
        of: train.groups.clone(),
        of_test: (!test.groups.is_empty()).then(|| test.groups.clone()),
        names: clients,
        noun: "client",
    });
    let mut test = if test.labels.is_empty() {
        None
    } else {
        Some(store(test)?)
    };
    let mut train = store(train)?;
    normalise(config, &mut train, test.as_mut())?;
    Ok(Loaded::Material(Box::new(Material {
        about: SET.about(),
        train,
        test,
        groups,
        class_names: Some(classes),
    })))
}
