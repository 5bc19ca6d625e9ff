-- What people may do at places: operators look after a programme's or a site's gateways, officers see what
-- goes on there. Beside the one role of an account.

create table role_grant (
    grant_id     bigint generated always as identity constraint role_grant_pk primary key,
    user_id      bigint not null constraint role_grant_user_fk references app_user on delete cascade,
    role         text not null,
    -- One of the two: a whole programme, whatever sites it has by then, or one site.
    programme_id integer constraint role_grant_programme_fk references programme,
    site_id      integer constraint role_grant_site_fk references site,
    -- Null: from the command line, or by somebody who is gone.
    granted_by   bigint constraint role_grant_by_fk references app_user on delete set null,
    granted_at   timestamptz not null default now(),
    constraint role_grant_role_known check (role in ('operator', 'officer')),
    constraint role_grant_one_place check (num_nonnulls(programme_id, site_id) = 1)
);
create unique index role_grant_key on role_grant (user_id, role, coalesce(programme_id, 0), coalesce(site_id, 0));
-- Every request of a programme's operator asks which sites it has.
create index site_programme on site (programme_id);
