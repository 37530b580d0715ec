//! Compiles every file under `regent/v1` with protox (a Rust protoc, so no system protoc is needed) and keeps
//! the descriptor set for gRPC reflection. Messages of `regent.v1` can be serialised to JSON, with the enumerations
//! written by name: every enumeration field gets a serialiser of its own, made from the descriptors.

use std::{env, fmt::Write as _, fs, path::PathBuf};

use prost::Message;
use prost_types::{
    DescriptorProto,
    field_descriptor_proto::{Label, Type},
};
use tonic_prost_build::Builder;

/// The package whose messages people see; Raft's own are opaque.
const PACKAGE: &str = "regent.v1";

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let root = PathBuf::from(env::var("CARGO_MANIFEST_DIR")?);
    let folder = root.join("regent/v1");
    println!("cargo:rerun-if-changed={}", folder.display());
    let mut files: Vec<PathBuf> =
        fs::read_dir(&folder)?.map(|entry| entry.map(|e| e.path())).collect::<Result<_, _>>()?;
    files.retain(|path| path.extension().is_some_and(|e| e == "proto"));
    files.sort();
    for file in &files {
        println!("cargo:rerun-if-changed={}", file.display());
    }
    let descriptors = protox::compile(&files, [&root])?;
    let out = PathBuf::from(env::var("OUT_DIR")?);
    fs::write(out.join("regent_descriptor.bin"), descriptors.encode_to_vec())?;

    let mut builder = tonic_prost_build::configure()
        // In order, so that the same message is the same text.
        .btree_map(format!(".{PACKAGE}"))
        .type_attribute(format!(".{PACKAGE}"), "#[derive(serde::Serialize)]")
        .type_attribute(format!(".{PACKAGE}"), "#[serde(rename_all = \"snake_case\")]");
    let mut names = String::new();
    for file in descriptors.file.iter().filter(|file| file.package() == PACKAGE) {
        for enumeration in &file.enum_type {
            writeln!(names, "named!({});", enumeration.name())?;
        }
        for message in &file.message_type {
            builder = enumerations_by_name(builder, &format!(".{PACKAGE}"), message);
        }
    }
    fs::write(out.join("enumerations.rs"), names)?;
    builder.compile_fds(descriptors)?;
    Ok(())
}

/// Has every enumeration field of `message`, and of the messages inside it, serialised by name.
fn enumerations_by_name(mut builder: Builder, parent: &str, message: &DescriptorProto) -> Builder {
    let path = format!("{parent}.{}", message.name());
    for field in &message.field {
        if field.r#type() != Type::Enum {
            continue;
        }
        let enumeration = field.type_name().rsplit('.').next().unwrap_or_default();
        assert!(
            field.label() != Label::Repeated && !field.proto3_optional(),
            "{path}.{}: only plain enumeration fields are written by name",
            field.name()
        );
        builder = builder.field_attribute(
            format!("{path}.{}", field.name()),
            format!("#[serde(serialize_with = \"crate::json::by_name::<_, crate::v1::{enumeration}>\")]"),
        );
    }
    for nested in &message.nested_type {
        builder = enumerations_by_name(builder, &path, nested);
    }
    builder
}
