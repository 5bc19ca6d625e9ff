-- What people uploaded. Each row stands for an object and its thumbnail in the file store (a folder, or S3): the
-- object is written before its row is committed and removed before its row is deleted, so that a row without an
-- object is a fault, and an object without a row is only litter until the next sweep.

create table file (
    file_id     bigint generated always as identity constraint file_pk primary key,
    -- The object's name, drawn at random: whoever knows it may see it.
    name        text not null constraint file_name_key unique,
    -- What it hangs on: a person, a post, …; not a foreign key, for it is of many tables.
    owner_kind  text not null,
    owner_id    bigint not null,
    -- Whose quota it is counted in.
    user_id     bigint not null constraint file_user_fk references app_user,
    purpose     text not null,
    -- As kept, thumbnail included.
    bytes       bigint not null,
    width       integer not null,
    height      integer not null,
    sha256      bytea not null,
    created_at  timestamptz not null default now(),
    -- No longer to be seen; the objects and then this row are about to go.
    deleted_at  timestamptz,
    constraint file_name_form check (name ~ '^[0-9a-f]{32}$'),
    constraint file_purpose_known check (purpose in ('profile_picture', 'waste_photo', 'post')),
    constraint file_owner_kind_form check (owner_kind ~ '^[a-z_]{1,32}$'),
    constraint file_size check (bytes > 0 and width > 0 and height > 0),
    constraint file_sha256_length check (octet_length(sha256) = 32)
);
create index file_owner on file (owner_kind, owner_id);
create index file_user on file (user_id, file_id) where deleted_at is null;
create index file_deleted on file (deleted_at) where deleted_at is not null;

-- The name of the person's picture in `file`.
alter table app_user add column profile_picture text;
