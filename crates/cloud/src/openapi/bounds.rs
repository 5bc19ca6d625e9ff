//! What the document says of the texts and times in requests: a name means one thing everywhere, so its bounds stand
//! here once. A field that says its own keeps them; every other text is without control characters, which the database
//! could not hold either.

use std::collections::{BTreeSet, VecDeque};
use utoipa::openapi::path::Parameter;
use utoipa::openapi::request_body::RequestBody;
use utoipa::openapi::schema::{ArrayItems, Object, Schema, SchemaFormat, SchemaType, Type};
use utoipa::openapi::{Components, RefOr};

/// Everything but control characters, and the same with lines.
const TEXT: &str = r"^[^\x00-\x1f\x7f-\x9f]*$";
const LINES: &str = r"^[^\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]*$";
const CODE: &str = "^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$";
const GATEWAY_KEY: &str = "^lbg_[A-Za-z0-9_-]{43}$";

/// The bounds of one name. Lengths are in characters.
#[derive(Default)]
struct Bounds {
    pattern: Option<&'static str>,
    format: Option<&'static str>,
    shortest: Option<usize>,
    longest: Option<usize>,
}

fn of(name: &str) -> Bounds {
    let pattern = |pattern| Bounds { pattern: Some(pattern), ..Bounds::default() };
    let format = |format| Bounds { format: Some(format), ..Bounds::default() };
    let text = |shortest, longest| Bounds {
        pattern: Some(TEXT),
        shortest: Some(shortest),
        longest: Some(longest),
        format: None,
    };
    match name {
        "code" | "programme" | "site" | "gateway_id" => pattern(CODE),
        "key" | "new_key" => pattern(GATEWAY_KEY),
        "username" => pattern("^[A-Za-z0-9][A-Za-z0-9_.-]{2,99}$"),
        "time_zone" => pattern("^[A-Za-z0-9+_/-]{1,64}$"),
        "phone_number" => pattern("^([0-9 +()-]{5,20})?$"),
        "refresh_token" => pattern("^lbr_[A-Za-z0-9_-]{86}$"),
        "public_key" => pattern("^[A-Za-z0-9_-]{43}$"),
        "proof" => pattern("^[A-Za-z0-9_-]{86}$"),
        "p256dh" => pattern("^[A-Za-z0-9_-]{87}=?$"),
        "auth" => pattern("^[A-Za-z0-9_-]{22}={0,2}$"),
        "bio" | "address" | "content" | "answer" => pattern(LINES),
        "email" => Bounds { shortest: Some(3), longest: Some(255), ..format("email") },
        "endpoint" | "url" => Bounds { longest: Some(2048), ..format("uri") },
        "password" | "new_password" => Bounds { shortest: Some(8), longest: Some(256), ..format("password") },
        "current_password" => Bounds { shortest: Some(1), longest: Some(256), ..format("password") },
        "from" | "to" | "until" => format("date-time"),
        "id" | "nfc_tag_id" => text(1, 128),
        // What was never given is not found.
        "token" | "claim" | "name" => text(0, 200),
        _ => pattern(TEXT),
    }
}

fn is_text(object: &Object) -> bool {
    match &object.schema_type {
        SchemaType::Type(kind) => *kind == Type::String,
        SchemaType::Array(kinds) => kinds.contains(&Type::String),
        SchemaType::AnyValue => false,
    }
}

fn bind(name: &str, object: &mut Object) {
    let says_its_own = object.pattern.is_some() || object.enum_values.is_some() || object.format.is_some();
    if !is_text(object) || says_its_own {
        return;
    }
    let bounds = of(name);
    object.pattern = bounds.pattern.map(str::to_owned);
    object.format = bounds.format.map(|format| SchemaFormat::Custom(format.to_owned()));
    object.min_length = object.min_length.or(bounds.shortest);
    object.max_length = object.max_length.or(bounds.longest);
}

/// Bounds of a parameter.
pub(super) fn bind_parameter(parameter: &mut RefOr<Parameter>) {
    if let RefOr::T(Parameter { name, schema: Some(RefOr::T(Schema::Object(object))), .. }) = parameter {
        bind(name, object);
    }
}

/// The names of the schemas that a body is made of.
pub(super) fn parts_of_body(body: &RefOr<RequestBody>) -> Vec<String> {
    let RefOr::T(body) = body else { return Vec::new() };
    let kinds = body.content.values().filter_map(|kind| match kind {
        RefOr::T(kind) => kind.schema.as_ref(),
        RefOr::Ref(_) => None,
    });
    kinds.filter_map(referred).collect()
}

fn referred(schema: &RefOr<Schema>) -> Option<String> {
    match schema {
        RefOr::Ref(to) => to.ref_location.rsplit('/').next().map(str::to_owned),
        RefOr::T(_) => None,
    }
}

/// Bounds of everything in these schemas and in those that they are made of.
pub(super) fn bind_schemas(components: &mut Components, names: BTreeSet<String>) {
    let mut known = names.clone();
    let mut left: VecDeque<String> = names.into_iter().collect();
    while let Some(name) = left.pop_front() {
        let Some(schema) = components.schemas.get_mut(&name) else { continue };
        let mut more = Vec::new();
        walk("", schema, &mut more);
        left.extend(more.into_iter().filter(|name| known.insert(name.clone())));
    }
}

fn walk(name: &str, schema: &mut RefOr<Schema>, more: &mut Vec<String>) {
    more.extend(referred(schema));
    let RefOr::T(schema) = schema else { return };
    match schema {
        Schema::Object(object) => {
            bind(name, object);
            for (name, property) in &mut object.properties {
                walk(name, property, more);
            }
        }
        Schema::Array(array) => {
            if let ArrayItems::RefOrSchema(items) = &mut array.items {
                walk(name, items, more);
            }
        }
        Schema::OneOf(one) => one.items.iter_mut().for_each(|item| walk(name, item, more)),
        Schema::AllOf(all) => all.items.iter_mut().for_each(|item| walk(name, item, more)),
        Schema::AnyOf(any) => any.items.iter_mut().for_each(|item| walk(name, item, more)),
        _ => {}
    }
}
