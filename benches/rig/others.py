"""Envoy and Caddy, when their binaries are given, configured as the proxies that are always there."""

import json

from . import origins


def envoy(plan):
    """One worker for each thread; its access log has its own default line."""
    configuration = plan.directory / f"{plan.name}.json"
    configuration.write_text(json.dumps({"static_resources": {
        "listeners": [{
            "name": "public", "address": socket_address(plan.port),
            "filter_chains": [{"filters": [{
                "name": "http", "typed_config": connection_manager(plan)}]}],
        }],
        "clusters": [{
            "name": "nodes", "type": "STATIC", "connect_timeout": "2s", "lb_policy": "ROUND_ROBIN",
            "circuit_breakers": {"thresholds": [{
                "max_connections": 8192, "max_pending_requests": 8192, "max_requests": 8192}]},
            "health_checks": [{
                "interval": "2s", "timeout": "2s", "unhealthy_threshold": 3, "healthy_threshold": 2,
                "http_health_check": {"path": origins.HEALTH},
            }],
            "load_assignment": {"cluster_name": "nodes", "endpoints": [{"lb_endpoints": [
                {"endpoint": {"address": socket_address(node)}} for node in plan.nodes]}]},
        }],
    }}))
    command = [plan.binary, "-c", str(configuration), "--concurrency", str(plan.threads),
               "--disable-hot-restart", "--log-level", "error"]
    return command, {}


def socket_address(port):
    """Loopback in Envoy's words."""
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}


def connection_manager(plan):
    """The filter that speaks HTTP to clients, with the same fields and limits as elsewhere."""
    kind = "type.googleapis.com/envoy.extensions"
    fields = {
        "X-Forwarded-Host": "%REQ(:AUTHORITY)%",
        "X-Real-IP": "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%",
        "Forwarded": "for=%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%;host=%REQ(:AUTHORITY)%;proto=http",
    }
    log = {"name": "file", "typed_config": {
        "@type": f"{kind}.access_loggers.file.v3.FileAccessLog", "path": str(plan.log)}}
    return {
        "@type": f"{kind}.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "public", "use_remote_address": True,
        "generate_request_id": True, "always_set_request_id_in_response": True,
        "upgrade_configs": [{"upgrade_type": "websocket"}], "stream_idle_timeout": "900s",
        "access_log": [log] if plan.log else [],
        "http_filters": [{"name": "router", "typed_config": {"@type": f"{kind}.filters.http.router.v3.Router"}}],
        "route_config": {
            "request_headers_to_add": [
                {"header": {"key": key, "value": value}, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}
                for key, value in fields.items()],
            "virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [
                {"match": {"prefix": "/"}, "route": {"cluster": "nodes", "timeout": "600s"}}]}],
        },
    }


def caddy(plan):
    """One thread of Go code for each thread; it sets `X-Forwarded-*` on its own."""
    nodes = " ".join(f"127.0.0.1:{node}" for node in plan.nodes)
    configuration = plan.directory / f"{plan.name}.Caddyfile"
    log = f"""log {{
        output file {plan.log} {{
            roll_disabled
        }}
    }}""" if plan.log else ""
    configuration.write_text(f"""{{
    admin off
    auto_https off
    persist_config off
    storage file_system {plan.directory}/{plan.name}-storage
}}
http://:{plan.port} {{
    bind 127.0.0.1
    {log}
    reverse_proxy {nodes} {{
        lb_policy round_robin
        health_uri {origins.HEALTH}
        health_interval 2s
        health_timeout 2s
        header_up X-Real-IP {{remote_host}}
        header_up Forwarded "for={{remote_host}};host={{hostport}};proto={{scheme}}"
        header_up X-Request-Id {{http.request.uuid}}
        header_down X-Request-Id {{http.request.uuid}}
        transport http {{
            keepalive_idle_conns_per_host 128
            compression off
        }}
    }}
}}
""")
    command = [plan.binary, "run", "--adapter", "caddyfile", "--config", str(configuration)]
    return command, {"GOMAXPROCS": str(plan.threads), "HOME": str(plan.directory)}
