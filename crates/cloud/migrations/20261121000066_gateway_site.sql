-- Where gateways stand and stood. A run names its site, and a gateway that lies could otherwise plant its records
-- at any site it knows the code of; records of a run that names a site where its gateway never stood wait in
-- quarantine. A row stays when the gateway is moved: what it recorded there and has not sent yet is still to come.
create table gateway_site (
    gateway_id integer not null constraint gateway_site_gateway_fk references gateway,
    site_id    integer not null constraint gateway_site_site_fk references site,
    since      timestamptz not null default now(),
    constraint gateway_site_pk primary key (gateway_id, site_id)
);

insert into gateway_site (gateway_id, site_id) select gateway_id, site_id from gateway;
-- Earlier moves were written down nowhere else: whoever was moved with records unsent has told of its old site in
-- the runs that were heard before.
insert into gateway_site (gateway_id, site_id, since)
select gateway_id, site_id, min(first_heard_at) from gateway_run group by gateway_id, site_id
on conflict on constraint gateway_site_pk do update set since = excluded.since;
