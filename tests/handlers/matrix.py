"""Who may do what: every route, method and WebSocket message, for every kind of credential, in whichever form it is shown. Tables only.

Those who come are `none`, without any credential; `malformed`, `expired`, `wrong-key` and `wrong-audience`, whose credential does not hold;
and those whose does: `other-tenant`, u7 of organisation o2 and entity e2; `agent`, who has the roles publisher and admin too, of o1 and e1;
`user`, u1 of o1 and e1, who owns the resources stream/1 and strategy/1; `publisher` and `admin`, who are of no entity.
"""

from __future__ import annotations

BAD = ("malformed", "expired", "wrong-key", "wrong-audience")
GOOD = ("other-tenant", "agent", "user", "publisher", "admin")
EVERYBODY = ("none", *BAD, *GOOD)

# The status of the answer. `/ws` lets everybody in who shows nothing: the first message must be a credential then.
ROUTES = """
route                        method  none  malformed  expired  wrong-key  wrong-audience  other-tenant  agent  user  publisher  admin
/v1/events                   POST    401   401        401      401        401             403           403    403   202        202
/v1/stream                   GET     401   401        401      401        401             200           200    200   200        200
/ws                          GET     101   401        401      401        401             101           101    101   101        101
/v1/tickets                  POST    401   401        401      401        401             201           201    201   201        201
/v1/renewals                 POST    401   401        401      401        401             202           202    202   202        202
/v1/sessions                 GET     401   401        401      401        401             403           403    403   403        200
/v1/sessions                 POST    401   401        401      401        401             403           403    403   403        201
/v1/sessions/<id>            DELETE  401   401        401      401        401             403           403    403   403        204
/v1/revocations              POST    401   401        401      401        401             403           403    403   403        202
/v1/resources/<kind>/<id>    GET     401   401        401      401        401             403           403    200   200        200
/v1/resources/<kind>/<id>    PUT     401   401        401      401        401             403           403    403   200        200
/v1/resources/<kind>/<id>    DELETE  401   401        401      401        401             403           403    403   204        204
/streams                     POST    401   401        401      401        401             403           403    201   201        201
/streams/<id>                GET     401   401        401      401        401             403           403    200   200        200
/streams/<id>/<step>         POST    401   401        401      401        401             403           403    200   200        200
/api/stream/orders           GET     401   401        401      401        401             200           200    200   200        200
/api/stream/positions        GET     401   401        401      401        401             200           200    200   200        200
/api/stream/prices           GET     200   401        401      401        401             200           200    200   200        200
/api/stream/trading          GET     401   401        401      401        401             200           200    200   200        200
/api/stream/ai-decisions     GET     401   401        401      401        401             200           200    200   200        200
/api/stream/strategies/<id>  GET     401   401        401      401        401             403           403    200   403        200
/api/stream/alerts           GET     401   401        401      401        401             200           200    200   200        200
/api/stream/metrics          GET     200   401        401      401        401             200           200    200   200        200
/api/stream/test             POST    401   401        401      401        401             403           403    403   403        202
/events                      GET     401   401        401      401        401             200           200    200   403        403
/events/subscribe            GET     401   401        401      401        401             200           200    200   200        200
/events/stats                GET     401   401        401      401        401             200           200    200   200        200
/healthz                     GET     200   200        200      200        200             200           200    200   200        200
/readyz                      GET     200   200        200      200        200             200           200    200   200        200
"""

# What each form is good for; elsewhere it is as if nothing were shown. And the code of the 401 for what does not hold.
FORMS = """
form         good-for    malformed        expired          wrong-key        wrong-audience
header       everything  unauthenticated  token_expired    unauthenticated  unauthenticated
query        everything  unauthenticated  token_expired    unauthenticated  unauthenticated
subprotocol  websockets  unauthenticated  token_expired    unauthenticated  unauthenticated
cookie       everything  unauthenticated  unauthenticated  unauthenticated  -
ticket       streams     unauthenticated  unauthenticated  unauthenticated  -
resume       streams     unauthenticated  token_expired    unauthenticated  -
"""

# A number is a close code, after `error`; a code alone is that of an `error`, after which the connection lives on; else the answer's type.
# `first`: nothing was shown in the handshake. `open`: on the user's connection. `own`: on a connection opened with that very credential.
MESSAGES = """
message      when   none  malformed        expired        wrong-key        wrong-audience   other-tenant  agent         user          publisher     admin
auth         first  -     4401             4402           4401             4401             welcome       welcome       welcome       welcome       welcome
auth         open   -     unauthenticated  token_expired  unauthenticated  unauthenticated  forbidden     forbidden     renewed       forbidden     forbidden
subscribe    first  4401  -                -              -                -                -             -             -             -             -
subscribe    own    -     -                -              -                -                subscribed    subscribed    subscribed    subscribed    subscribed
unsubscribe  first  4401  -                -              -                -                -             -             -             -             -
unsubscribe  own    -     -                -              -                -                unsubscribed  unsubscribed  unsubscribed  unsubscribed  unsubscribed
ping         first  4401  -                -              -                -                -             -             -             -             -
ping         own    -     -                -              -                -                pong          pong          pong          pong          pong
ack          first  4401  -                -              -                -                -             -             -             -             -
ack          own    -     -                -              -                -                silence       silence       silence       silence       silence
"""  # noqa: E501  # a table is read by its columns

# Whose events each of them hears, of events for each of these audiences.
HEARS = """
audience            other-tenant  agent  user  publisher  admin
public              yes           yes    yes   yes        yes
user:u1             no            no     yes   no         no
user:u7             yes           no     no    no         no
org:o1              no            yes    yes   yes        no
org:o2              yes           no     no    no         no
resource:stream/1   no            no     yes   no         no
resource:stream/9   no            no     no    no         no
"""


def rows(table: str) -> list[dict[str, str]]:
    """Return a table's rows, each by the names of the columns."""
    head, *lines = [line.split() for line in table.strip().splitlines()]
    return [dict(zip(head, line, strict=True)) for line in lines]
