-- SOCKS 4, 4a and 5 with UDP and IP multicast, for Wireshark 4 and tshark:
--
--   tshark -X lua_script:mcastsocks.lua ...
--   or copy this file to the personal Lua plugins folder (Wireshark: Help, About, Folders).
--
-- It takes the place of Wireshark's own `socks` on its TCP ports. Datagrams are recognised where a reply seen in the
-- same capture named the relay's endpoint, or by port. Passwords and keys are never shown, only their lengths.
--
-- From top to bottom: names, fields, the cursor that reads, one table a layout, the order of messages on a connection,
-- datagrams, what Wireshark calls. Layouts know nothing of connections; reading and showing are two steps, so that a
-- message still incomplete leaves no trace.

local proto = Proto("mcastsocks", "SOCKS with UDP and multicast")

local preferences = {
    tcp_ports = "1080",
    udp_ports = "1080",
    guess_udp = false,
}
proto.prefs.tcp_ports = Pref.range("TCP ports", preferences.tcp_ports, "Ports on which relays listen", 65535)
proto.prefs.udp_ports = Pref.range("UDP ports", preferences.udp_ports, "Ports of enhanced-mode datagrams", 65535)
proto.prefs.guess_udp = Pref.bool("Recognise datagrams on any port", false,
    "Claims what can hardly be anything else; what a reply of the capture announced is recognised without this")

---------------------------------------------------------------- names

local ATYPS = { [0] = "unused", [1] = "IPv4", [3] = "name", [4] = "IPv6" }
local COMMANDS = { [1] = "CONNECT", [2] = "BIND", [3] = "UDP ASSOCIATE", [4] = "ENHANCED_UDP_MODE",
    [0x10] = "LIST-FEATURES" }
local METHODS = { [0] = "none", [1] = "GSS-API", [2] = "username/password", [0xff] = "none acceptable" }
local REPLIES = {  -- one list for RFC 1928 §6, pro-v5 §6 (09) and mcast §4.3 (10 and up)
    [0x00] = "succeeded",
    [0x01] = "general failure",
    [0x02] = "not allowed by ruleset",
    [0x03] = "network unreachable",
    [0x04] = "host unreachable",
    [0x05] = "connection refused",
    [0x06] = "TTL expired",
    [0x07] = "command not supported",
    [0x08] = "address type not supported",
    [0x09] = "invalid address",
    [0x10] = "bad association id",
    [0x11] = "multicast receive not allowed by ruleset",
    [0x12] = "multicast send not allowed by ruleset",
    [0x13] = "bad association context",
    [0x14] = "bad multicast address",
    [0x15] = "TTL not allowed by ruleset",
}
local PKT_TYPES = { [1] = "control request", [2] = "control reply", [3] = "encapsulated datagram" }
local UDPCMDS = { [5] = "UDP BIND", [6] = "UDP RELEASE", [7] = "SET TTL" }
local OPTIONS = { [1] = "SOURCE-INCLUDE", [2] = "SOURCE-EXCLUDE", [4] = "PROTECTION", [5] = "REASON", [6] = "RESOLVED" }
local AEADS = { [1] = "AES-128-GCM", [2] = "ChaCha20-Poly1305" }
local AEAD_KEY_OCTETS = { [1] = 16, [2] = 32 }
local TAGS = { [0] = "FDL", [1] = "SOCKS", [2] = "ADDR", [3] = "AUTH", [4] = "COMMAND", [0x10] = "SERVER" }
local SCOPES = { [1] = "client address", [2] = "authentication method", [3] = "destination host" }
local SERVER_FACTS = { [1] = "HOSTNAME", [2] = "URL", [3] = "OPAQUE", [4] = "LOAD" }
local ENHANCED_FEATURES = { [1] = "base extensions", [2] = "multicast extensions", [0x81] = "source filters",
    [0x82] = "source reporting", [0x83] = "datagram protection", [0x84] = "reasons" }
local SOCKS4_COMMANDS = { [1] = "CONNECT", [2] = "BIND" }
local SOCKS4_REPLIES = { [90] = "granted", [91] = "rejected", [92] = "no identd", [93] = "another user by identd" }

local FLAGS = {
    { 0x0001, "receive_from", "RECEIVE-FROM" },
    { 0x0002, "send_to", "SEND-TO" },
    { 0x0004, "udp_unicast", "UDP-UNICAST" },
    { 0x0008, "tcp_encapsulated", "TCP-ENCAPSULATED" },
    { 0x0010, "udp_multicast", "UDP-MULTICAST" },
    { 0x0020, "mu_mode", "MU-MODE" },
    { 0x0040, "mm_mode", "MM-MODE" },
    { 0x0100, "report_source", "REPORT-SOURCE" },
    { 0x8000, "extended", "EXTENDED" },
}
local RSV_BITS = { { 0x01, "source", "source block present" }, { 0x02, "protected", "protected" } }
local FLAG_BITS = {  -- FLAG of a request and its reply, by CMD
    [3] = { { 0x01, "interface_request", "INTERFACE REQUEST" }, { 0x04, "useclientsport", "USECLIENTSPORT" } },
    [0x10] = { { 0x01, "persistence", "persistence" } },
}
local RECEIVE_FROM, TCP_ENCAPSULATED, REPORT_SOURCE, EXTENDED = 0x0001, 0x0008, 0x0100, 0x8000
local SOURCE_PRESENT, PROTECTED = 0x01, 0x02
local LAST_FRAGMENT = 0x80
local UDP_BIND = 5
local NO_BLOCKS = 13     -- SIZE of a control message without LOCAL and REMOTE
local HEADER_OCTETS = 8  -- of an enhanced-mode datagram
local TAG_OCTETS = 16

local function named(names, number, format)
    return string.format("%s (" .. format .. ")", names[number] or "unknown", number)
end

---------------------------------------------------------------- fields

local F = {}

-- `abbreviation` may name several fields of unlike width; `key` is then what tells them apart here.
local function field(make, key, title, options, abbreviation)
    F[key] = make("mcastsocks." .. (abbreviation or key), title, table.unpack(options or {}))
end

local function bit_fields(parent, bits, width)
    for _, each in ipairs(bits) do
        field(ProtoField.bool, parent .. "." .. each[2], each[3], { width, nil, each[1] })
    end
end

local uint8, uint16, uint32 = ProtoField.uint8, ProtoField.uint16, ProtoField.uint32

field(uint8, "ver", "VER")
field(uint8, "nmethods", "NMETHODS")
field(uint8, "methods", "METHODS", { base.HEX, METHODS })
field(uint8, "method", "METHOD", { base.HEX, METHODS })
field(uint8, "ulen", "ULEN")
field(ProtoField.string, "uname", "UNAME")
field(uint8, "plen", "PLEN")
field(uint8, "status", "STATUS")
field(uint8, "cmd", "CMD", { base.HEX, COMMANDS })
field(uint8, "rep", "REP", { base.HEX, REPLIES })
field(uint8, "flag", "FLAG", { base.HEX })
for _, bits in pairs(FLAG_BITS) do
    bit_fields("flag", bits, 8)
end
field(uint8, "sub", "SUB")

field(uint8, "vn", "VN")
field(uint8, "socks4.command", "CD", { base.DEC, SOCKS4_COMMANDS }, "cd")
field(uint8, "socks4.reply", "CD", { base.DEC, SOCKS4_REPLIES }, "cd")
field(uint16, "dstport", "DSTPORT")
field(ProtoField.ipv4, "dstip", "DSTIP")
field(ProtoField.string, "userid", "USERID")
field(ProtoField.string, "host", "HOST")

field(uint8, "feature.tag", "TAG", { base.HEX, TAGS })
field(uint8, "feature.subtag", "SUBTAG", { base.HEX })
field(uint8, "feature.len", "LEN")
field(ProtoField.bytes, "feature.value", "VALUE")
field(ProtoField.bytes, "feature.end", "END")

field(uint8, "pkt_type", "PKT TYPE", { base.HEX, PKT_TYPES })
field(uint16, "size", "SIZE")
field(uint8, "udpcmd", "UDPCMD", { base.HEX, UDPCMDS })
field(uint8, "reply", "REPLY", { base.HEX, REPLIES })
field(uint16, "flags", "FLAGS", { base.HEX })
bit_fields("flags", FLAGS, 16)
field(uint8, "rsvd", "RSVD")
field(uint16, "tid", "TID")
field(uint32, "aid", "AID", { base.HEX })
field(ProtoField.bytes, "rest", "Octets to be ignored")

field(uint8, "option.type", "TYPE", { base.HEX, OPTIONS })
field(uint16, "option.len", "LEN")
field(ProtoField.bytes, "option.value", "VALUE")
field(uint8, "option.aead", "AEAD", { base.HEX, AEADS })
field(ProtoField.string, "option.reason", "REASON")

field(uint8, "rsv", "RSV", { base.HEX })
bit_fields("rsv", RSV_BITS, 8)
field(uint8, "rsv.zero", "RSV", { base.HEX }, "rsv")
field(uint16, "rsv.zero2", "RSV", { base.HEX }, "rsv")
field(uint8, "frag", "FRAG", { base.HEX })
field(uint16, "dgid", "DGID")
field(ProtoField.uint64, "pn", "PN")
field(ProtoField.bytes, "ciphertext", "Ciphertext")
field(ProtoField.bytes, "tag", "Tag")
field(ProtoField.bytes, "data", "DATA")

for _, role in ipairs({ "dst", "bnd", "local", "remote", "source", "option" }) do
    field(uint8, role .. ".atyp", "ATYP", { base.HEX, ATYPS })
    field(ProtoField.ipv4, role .. ".addr", "ADDR")
    field(ProtoField.ipv6, role .. ".addr6", "ADDR")
    field(ProtoField.string, role .. ".name", "ADDR")
    field(ProtoField.bytes, role .. ".unknown", "Octets behind an unknown ATYP")
    field(uint16, role .. ".port", "PORT")
end

field(ProtoField.framenum, "response_in", "Response in", { base.NONE, frametype.RESPONSE })
field(ProtoField.framenum, "response_to", "Response to", { base.NONE, frametype.REQUEST })
field(ProtoField.relative_time, "time", "Time since the request")

proto.fields = F

local E = {
    size = ProtoExpert.new("mcastsocks.expert.size", "SIZE is too small: framing is broken",
        expert.group.MALFORMED, expert.severity.ERROR),
    framing = ProtoExpert.new("mcastsocks.expert.framing", "Framing is broken",
        expert.group.MALFORMED, expert.severity.ERROR),
    runt = ProtoExpert.new("mcastsocks.expert.runt", "Ends inside a field",
        expert.group.MALFORMED, expert.severity.ERROR),
    bits = ProtoExpert.new("mcastsocks.expert.bits", "Unknown bits are set",
        expert.group.PROTOCOL, expert.severity.WARN),
    frag = ProtoExpert.new("mcastsocks.expert.frag", "FRAG X'80' has no position",
        expert.group.MALFORMED, expert.severity.WARN),
    value = ProtoExpert.new("mcastsocks.expert.value", "Not a value that may stand here",
        expert.group.PROTOCOL, expert.severity.WARN),
    option = ProtoExpert.new("mcastsocks.expert.option", "Malformed option",
        expert.group.MALFORMED, expert.severity.WARN),
    refused = ProtoExpert.new("mcastsocks.expert.refused", "Refused",
        expert.group.RESPONSE_CODE, expert.severity.NOTE),
    unexpected = ProtoExpert.new("mcastsocks.expert.unexpected", "No message that may stand here",
        expert.group.PROTOCOL, expert.severity.WARN),
}
proto.experts = E

---------------------------------------------------------------- the cursor

-- Reads fields one behind the other, up to a limit, and keeps them as items for show(). What a message said is in
-- `said`, by field. Reading beyond the limit throws SHORT.
local Cursor = {}
Cursor.__index = Cursor
local SHORT = {}

function Cursor.new(tvb, at, limit)
    return setmetatable({ tvb = tvb, start = at, at = at, limit = limit, items = {}, said = {} }, Cursor)
end

function Cursor:left()
    return self.limit - self.at
end

function Cursor:peek()
    return self:left() > 0 and self.tvb(self.at, 1):uint() or nil
end

function Cursor:take(octets)
    if octets > self:left() then
        error(SHORT, 0)
    end
    local range = self.tvb(self.at, octets)
    self.at = self.at + octets
    return range
end

function Cursor:keep(item)
    self.items[#self.items + 1] = item
    self.newest = item
    return item
end

function Cursor:number(name, octets)
    local range = self:take(octets)
    local value = range:uint()
    self:keep({ field = F[name], range = range })
    self.said[name] = value
    return value
end

-- A number and a line for each bit of it that has a name.
function Cursor:bits(name, octets, bits)
    local range = self:take(octets)
    local value, known, children, set = range:uint(), 0, {}, {}
    for _, each in ipairs(bits) do
        children[#children + 1] = { field = F[name .. "." .. each[2]], range = range }
        known = known + each[1]
        if bit.band(value, each[1]) ~= 0 then
            set[#set + 1] = each[3]
        end
    end
    self:keep({ field = F[name], range = range, children = children, note = table.concat(set, ", ") })
    self.said[name] = value
    self.said[name .. ".text"] = table.concat(set, "+")
    if bit.band(value, bit.bnot(known)) ~= 0 then
        self:warn(E.bits)
    end
    return value
end

function Cursor:bytes(name, octets)
    if octets > 0 then
        self:keep({ field = F[name], range = self:take(octets) })
    end
end

function Cursor:text(name, octets)
    self.said[name] = ""
    if octets > 0 then
        local range = self:take(octets)
        self.said[name] = range:string()
        self:keep({ field = F[name], range = range })
    end
end

-- Text up to a NUL.
function Cursor:terminated(name)
    local from = self.at
    repeat
        local octet = self:take(1):uint()
    until octet == 0
    local range = self.tvb(from, self.at - from)
    self.said[name] = range:stringz()
    self:keep({ field = F[name], range = range, value = range:stringz() })
end

-- Octets that are not for showing: an item without a range, for some outputs print the octets of every range.
function Cursor:hidden(what, octets)
    if self.inside then
        self.inside.last = self.inside.last or self.at
    end
    self:take(octets)
    self:keep({ title = string.format("%s: %d octets, hidden", what, octets) })
end

function Cursor:group(title, read)
    local outer_items, outer_group = self.items, self.inside
    local item = self:keep({ title = title, first = self.at, children = {} })
    self.items, self.inside = item.children, item
    local ok, result = pcall(read, item)
    self.items, self.inside = outer_items, outer_group
    item.last = item.last or self.at
    if not ok then
        error(result, 0)
    end
    return result
end

-- An expert info on the newest item, or on the message as a whole.
function Cursor:warn(which, text)
    local item = self.newest or self
    item.warnings = item.warnings or {}
    table.insert(item.warnings, { which, text })
end

-- The octets behind ATYP; nil where its number does not tell how many they are.
function Cursor:address(role, atyp)
    if atyp == 0 or atyp == 1 then
        local range = self:take(4)
        self:keep({ field = F[role .. ".addr"], range = range })
        return tostring(range:ipv4())
    elseif atyp == 4 then
        local range = self:take(16)
        self:keep({ field = F[role .. ".addr6"], range = range })
        return tostring(range:ipv6())
    elseif atyp == 3 then
        return self:name(role)
    end
    self:warn(E.value, "ATYP unknown")
    self:bytes(role .. ".unknown", self:left())
end

function Cursor:name(role)
    local from = self.at
    local octets = self:take(1):uint()
    local name = octets > 0 and self:take(octets):string() or ""
    self:keep({ field = F[role .. ".name"], range = self.tvb(from, 1 + octets), value = name })
    if octets == 0 then
        self:warn(E.value, "Empty name")
    end
    return name
end

-- ATYP ADDR PORT; said[role] is { atyp, address, port, text }. False where the end could not be found.
function Cursor:endpoint(role)
    return self:group(role:upper(), function(item)
        local atyp = self:number(role .. ".atyp", 1)
        local address = self:address(role, atyp)
        if not address then
            item.title = item.title .. ": unknown ATYP"
            return false
        end
        local port = self:number(role .. ".port", 2)
        local unused = atyp == 0 and address == "0.0.0.0" and port == 0
        if atyp == 0 and not unused then
            self:warn(E.value, "ATYP 00 with content")
        end
        local text = unused and "unused" or string.format(atyp == 4 and "[%s]:%d" or "%s:%d", address, port)
        self.said[role] = { atyp = atyp, address = address, port = port, text = text }
        item.title = item.title .. ": " .. text
        return true
    end)
end

local function show_items(tree, tvb, items)
    for _, item in ipairs(items) do
        local node
        if item.field and item.value then
            node = tree:add(item.field, item.range, item.value)
        elseif item.field then
            node = tree:add(item.field, item.range)
        elseif item.first and item.last > item.first then
            node = tree:add(tvb(item.first, item.last - item.first), item.title)
        else
            node = tree:add(item.title)
        end
        if item.note and item.note ~= "" then
            node:append_text(" (" .. item.note .. ")")
        end
        for _, warning in ipairs(item.warnings or {}) do
            node:add_proto_expert_info(table.unpack(warning))
        end
        show_items(node, tvb, item.children or {})
    end
end

local function show(tree, cursor, title)
    local node = tree:add(proto, cursor.tvb(cursor.start, cursor.at - cursor.start), title)
    for _, warning in ipairs(cursor.warnings or {}) do
        node:add_proto_expert_info(table.unpack(warning))
    end
    show_items(node, cursor.tvb, cursor.items)
    return node
end

---------------------------------------------------------------- layouts

-- A layout reads one message: read(cursor, record). `record` is what the connection knew when the message first
-- came (see below). `title` becomes the headline, summary(said) what stands behind it there and in the Info column.
local layouts = {}

local function aid_text(said)
    return string.format("AID 0x%08x", said.aid or 0)
end

---- SOCKS 5: RFC 1928, RFC 1929, pro-v5

layouts.greeting = {
    title = "SOCKS 5 greeting",
    read = function(c)
        c:number("ver", 1)
        c.said.offered = {}
        for _ = 1, c:number("nmethods", 1) do
            c.said.offered[c:number("methods", 1)] = true
        end
    end,
    summary = function(said)
        return string.format("%d methods", said.nmethods)
    end,
}

layouts.method = {
    title = "SOCKS 5 method",
    read = function(c)
        c:number("ver", 1)
        if c:number("method", 1) == 0xff then
            c:warn(E.refused)
        end
    end,
    summary = function(said)
        return named(METHODS, said.method, "0x%02x")
    end,
}

layouts.userpass = {
    title = "Username/password",
    read = function(c)
        c:number("ver", 1)
        if c:number("ulen", 1) == 0 then
            c:warn(E.value, "Empty name")
        end
        c:text("uname", c.said.ulen)
        c:hidden("PASSWD", c:number("plen", 1))
    end,
    summary = function(said)
        return said.uname
    end,
}

layouts.userpass_reply = {
    title = "Username/password reply",
    read = function(c)
        c:number("ver", 1)
        if c:number("status", 1) ~= 0 then
            c:warn(E.refused)
        end
    end,
    summary = function(said)
        return said.status == 0 and "succeeded" or "refused"
    end,
}

layouts.request = {
    title = "Request",
    read = function(c)
        c:number("ver", 1)
        local cmd = c:number("cmd", 1)
        if not COMMANDS[cmd] then
            c:warn(E.value, "CMD unknown")
        end
        c:bits("flag", 1, FLAG_BITS[cmd] or {})
        c:endpoint("dst")
    end,
    summary = function(said)
        return named(COMMANDS, said.cmd, "0x%02x") .. (said.dst and " " .. said.dst.text or "")
    end,
}

layouts.reply = {
    title = "Reply",
    read = function(c, record)
        c:number("ver", 1)
        if c:number("rep", 1) ~= 0 then
            c:warn(E.refused, REPLIES[c.said.rep])
        end
        c:bits("flag", 1, FLAG_BITS[record.cmd] or {})
        c:endpoint("bnd")
    end,
    summary = function(said)
        return named(REPLIES, said.rep, "0x%02x") .. (said.bnd and " " .. said.bnd.text or "")
    end,
}

layouts.interface_data = {
    title = "INTERFACE DATA",
    read = function(c)
        if c:number("rsv.zero", 1) ~= 0 then
            c:warn(E.value, "RSV is not 0")
        end
        if c:number("sub", 1) ~= 1 then
            c:warn(E.value, "SUB unknown")
        end
        c:bits("flag", 1, {})
        c:endpoint("dst")
    end,
    summary = function(said)
        return said.dst and said.dst.text or ""
    end,
}

---- Feature discovery: ext

local function every(names)
    return function(range)
        local found = {}
        for number = 0, range:len() - 1 do
            found[#found + 1] = named(names, range(number, 1):uint(), "0x%02x")
        end
        return table.concat(found, ", ")
    end
end

local function as_text(range)
    return range:string()
end

-- What SUBTAG and VALUE say, by TAG: the name of a SUBTAG, and a function for VALUE.
local FEATURES = {
    [0x00] = { { [0x10] = "SCOPE" }, every(SCOPES) },
    [0x01] = { { [4] = "version 4", [5] = "version 5" } },
    [0x02] = { ATYPS },
    [0x03] = { METHODS },
    [0x04] = { COMMANDS, every(ENHANCED_FEATURES) },
    [0x10] = { SERVER_FACTS, as_text },
}

local function explain_feature(tag, subtag, value)
    local names, explain = table.unpack(FEATURES[tag] or {})
    local text = string.format("%s: %s", named(TAGS, tag, "0x%02x"), named(names or {}, subtag, "0x%02x"))
    if not value or not explain then
        return text
    elseif tag == 4 and subtag == 0x10 then
        return text .. ", persistence"
    end
    return text .. ", " .. explain(value)
end

local function read_feature(c)
    c:group("Feature", function(item)
        local tag, subtag = c:number("feature.tag", 1), c:number("feature.subtag", 1)
        local octets = c:number("feature.len", 1)
        c:bytes("feature.value", octets)
        item.title = explain_feature(tag, subtag, octets > 0 and c.tvb(c.at - octets, octets))
    end)
end

-- END may be one octet where the stream ends: what follows it is read when it is there, see features_tail.
layouts.features = {
    title = "Feature list",
    read = function(c)
        c.said.count = 0
        while c:peek() ~= 0xff do
            read_feature(c)
            c.said.count = c.said.count + 1
        end
        c.said.end_octets = math.min(3, c:left())
        c:bytes("feature.end", c.said.end_octets)
    end,
    summary = function(said)
        return string.format("%d features", said.count)
    end,
}

layouts.features_tail = {
    title = "Feature list, rest of END",
    read = function(c, record)
        c.said.end_octets = math.min(record.end_octets, c:left())
        c:bytes("feature.end", c.said.end_octets)
    end,
}

---- SOCKS 4 and 4a

layouts.socks4_request = {
    title = "SOCKS 4 request",
    read = function(c)
        c:number("vn", 1)
        c:number("socks4.command", 1)
        c:number("dstport", 2)
        local address = c:take(4)
        c:keep({ field = F.dstip, range = address })
        c:terminated("userid")
        c.said.host = tostring(address:ipv4())
        if address:uint() > 0 and address:uint() < 256 then
            c:terminated("host")
        end
    end,
    summary = function(said)
        return string.format("%s %s:%d", named(SOCKS4_COMMANDS, said["socks4.command"], "%d"), said.host, said.dstport)
    end,
}

layouts.socks4_reply = {
    title = "SOCKS 4 reply",
    read = function(c)
        c:number("vn", 1)
        if c:number("socks4.reply", 1) ~= 90 then
            c:warn(E.refused)
        end
        c:number("dstport", 2)
        c:keep({ field = F.dstip, range = c:take(4) })
    end,
    summary = function(said)
        return named(SOCKS4_REPLIES, said["socks4.reply"], "%d")
    end,
}

---- Options behind REMOTE: extensions of this project

local function read_sources(c)
    local atyp = c:number("option.atyp", 1)
    if atyp ~= 1 and atyp ~= 4 then
        error(SHORT, 0)
    end
    while c:left() > 0 do
        c:address("option", atyp)
    end
end

local function read_protection_offer(c)
    while c:left() > 0 do
        c:number("option.aead", 1)
    end
end

local function read_protection_grant(c)
    local key_octets = AEAD_KEY_OCTETS[c:number("option.aead", 1)]
    if not key_octets or c:left() ~= 2 * key_octets + 8 then
        c:warn(E.option)
        c:hidden("Keys", c:left())
        return
    end
    c:hidden("KEY client to relay", key_octets)
    c:hidden("KEY relay to client", key_octets)
    c:hidden("SALT client to relay", 4)
    c:hidden("SALT relay to client", 4)
end

local function read_reason(c)
    c:text("option.reason", c:left())
end

local function read_resolved(c)
    c:address("option", c:number("option.atyp", 1))
end

-- By TYPE, in requests and in replies. A reader that does not use up VALUE has not understood it.
local OPTION_READERS = {
    [1] = { read_sources, read_sources },
    [2] = { read_sources, read_sources },
    [4] = { read_protection_offer, read_protection_grant },
    [5] = { read_reason, read_reason },
    [6] = { read_resolved, read_resolved },
}

-- VALUE by a cursor of its own, so that what it read before it gave up can be forgotten.
local function read_option_value(c, reader, octets)
    local inner = Cursor.new(c.tvb, c.at, c.at + octets)
    inner.inside, inner.said = c.inside, c.said
    local ok, problem = pcall(reader, inner)
    if not ok and problem ~= SHORT then
        error(problem, 0)
    end
    if not ok or inner:left() > 0 then
        c:warn(E.option)
        c:bytes("option.value", octets)
        return
    end
    for _, item in ipairs(inner.items) do
        c:keep(item)
    end
    c.at = inner.at
end

local function read_option(c)
    c:group("Option", function(item)
        local kind = c:number("option.type", 1)
        item.title = "Option " .. named(OPTIONS, kind, "0x%02x")
        local octets = c:number("option.len", 2)
        local reader = (OPTION_READERS[kind] or {})[c.said.pkt_type]
        if reader then
            read_option_value(c, reader, octets)
        else
            c:warn(E.option, "Unknown option")
            c:bytes("option.value", octets)
        end
    end)
end

local function option_is_whole(c)
    return c:left() >= 3 and c:left() >= 3 + c.tvb(c.at + 1, 2):uint()
end

---- Control messages: mcast §4.2, §4.3

local function read_blocks(c)
    if not (c:endpoint("local") and c:endpoint("remote")) then
        return
    end
    if bit.band(c.said.flags, EXTENDED) ~= 0 then
        while option_is_whole(c) do
            read_option(c)
        end
        if c:left() > 0 then
            c:warn(E.option, "An option overruns SIZE")
        end
    end
end

local function control(code, names)
    return function(c)
        c:number("pkt_type", 1)
        c:number("size", 2)
        if not names[c:number(code, 1)] then
            c:warn(E.value)
        elseif code == "reply" and c.said.reply ~= 0 then
            c:warn(E.refused, REPLIES[c.said.reply])
        end
        c:bits("flags", 2, FLAGS)
        c:number("rsvd", 1)
        c:number("tid", 2)
        c:number("aid", 4)
        if c.said.size ~= NO_BLOCKS then
            read_blocks(c)
        end
        c:bytes("rest", c:left())
    end
end

local function control_summary(code, names)
    return function(said)
        local text = string.format("%s TID %d %s", named(names, said[code], "0x%02x"), said.tid, aid_text(said))
        if said["flags.text"] ~= "" then
            text = text .. " " .. said["flags.text"]
        end
        local remote = said.remote and said.remote.text or "unused"
        return remote == "unused" and text or text .. " " .. remote
    end
end

layouts.control_request = {
    title = "Control request",
    least = NO_BLOCKS,
    read = control("udpcmd", UDPCMDS),
    summary = control_summary("udpcmd", UDPCMDS),
}

layouts.control_reply = {
    title = "Control reply",
    least = NO_BLOCKS,
    read = control("reply", REPLIES),
    summary = control_summary("reply", REPLIES),
}

layouts.encapsulated = {
    title = "Encapsulated datagram",
    least = 7,
    read = function(c, record)
        c:number("pkt_type", 1)
        c:number("size", 2)
        local aid = c:number("aid", 4)
        if record.reports and record.reports(aid) then
            c:endpoint("source")
        end
        c:bytes("data", c:left())
    end,
    summary = function(said)
        return aid_text(said) .. (said.source and " from " .. said.source.text or "")
    end,
}

-- A message that ends the framing: shown as far as it is known, and everything behind it is octets.
layouts.broken = {
    title = "Broken framing",
    read = function(c)
        local kind = c:number("pkt_type", 1)
        c:warn(E.framing, PKT_TYPES[kind] and PKT_TYPES[kind] .. " from this side" or "PKT TYPE unknown")
        c:bytes("rest", c:left())
    end,
}

layouts.undersized = {
    title = "Broken framing",
    read = function(c)
        c:number("pkt_type", 1)
        c:number("size", 2)
        c:warn(E.size)
        c:bytes("rest", c:left())
    end,
}

layouts.data = {
    title = "Data",
    read = function(c)
        c:bytes("data", c:left())
    end,
}

layouts.unexpected = {
    title = "Unexpected octets",
    read = function(c)
        c:bytes("rest", c:left())
        c:warn(E.unexpected)
    end,
}

---- Datagrams: mcast §4.5 with the RSV bits of this project; RFC 1928 §7

local function frag_note(frag)
    if frag == 0 then
        return "standalone"
    elseif frag == LAST_FRAGMENT then
        return "no position"
    end
    local position = bit.band(frag, 0x7f)
    return string.format(frag > LAST_FRAGMENT and "fragment %d, the last" or "fragment %d", position)
end

local function read_frag(c)
    local frag = c:number("frag", 1)
    c.newest.note = frag_note(frag)
    if frag == LAST_FRAGMENT then
        c:warn(E.frag)
    end
    return frag
end

local function read_sealed(c)
    local number = c:take(8)
    c:keep({ field = F.pn, range = number })
    if c:left() < TAG_OCTETS then
        error(SHORT, 0)
    end
    c:bytes("ciphertext", c:left() - TAG_OCTETS)
    c:bytes("tag", TAG_OCTETS)
end

layouts.datagram = {
    title = "Datagram",
    read = function(c)
        local rsv = c:bits("rsv", 1, RSV_BITS)
        local frag = read_frag(c)
        c:number("dgid", 2)
        c:number("aid", 4)
        if bit.band(rsv, PROTECTED) ~= 0 then
            return read_sealed(c)
        end
        local at_start = frag == 0 or frag == 0x01 or frag == 0x81
        if bit.band(rsv, SOURCE_PRESENT) ~= 0 and at_start then
            c:endpoint("source")
        end
        c:bytes("data", c:left())
    end,
    summary = function(said)
        local text = aid_text(said)
        if said.frag and said.frag ~= 0 then
            text = string.format("%s DGID %d %s", text, said.dgid or 0, frag_note(said.frag))
        end
        if bit.band(said.rsv or 0, PROTECTED) ~= 0 then
            text = text .. " protected"
        end
        return text .. (said.source and " from " .. said.source.text or "")
    end,
}

layouts.datagram_1928 = {
    title = "RFC 1928 datagram",
    read = function(c)
        if c:number("rsv.zero2", 2) ~= 0 then
            c:warn(E.value, "RSV is not 0")
        end
        read_frag(c)
        c:endpoint("dst")
        c:bytes("data", c:left())
    end,
    summary = function(said)
        return said.dst and said.dst.text or ""
    end,
}

-- Reads one message. False as the second result: it ends before its layout does.
local function read(layout, tvb, at, limit, record)
    local cursor = Cursor.new(tvb, at, limit)
    local ok, problem = pcall(layout.read, cursor, record)
    if not ok and problem ~= SHORT then
        error(problem, 0)
    end
    return cursor, ok
end

---------------------------------------------------------------- connections

-- What one TCP connection has come to. `client` and `server` say what that side writes next; `asked` holds SOCKS
-- requests in order, for their replies; `by_tid` control requests; `reporting` the AIDs with a source block in frames.
-- A record is what was known of a message when it first came, for Wireshark dissects frames again, in any order.
local connections = {}  -- by both ends, the newest of each
local frames = {}       -- by frame number, what is needed to dissect it again: { connection, records, missing }
local endpoints = {}    -- of relays, by replies: endpoints["addr:port"][client address] = layout of datagrams
local claimed = {}      -- UDP frame number -> layout, as decided when it first came

local function new_connection(pinfo)
    return {
        client_address = tostring(pinfo.src),
        client_port = pinfo.src_port,
        client = "start",
        server = "start",
        asked = {},
        by_tid = {},
        reporting = {},
    }
end

local function side_of(connection, pinfo)
    local is_client = pinfo.src_port == connection.client_port and tostring(pinfo.src) == connection.client_address
    return is_client and "client" or "server"
end

local function learn(connection, endpoint, layout)
    if endpoint and (endpoint.atyp == 1 or endpoint.atyp == 4) and endpoint.port ~= 0 then
        local key = endpoint.address .. ":" .. endpoint.port
        endpoints[key] = endpoints[key] or {}
        endpoints[key][connection.client_address] = layout
        endpoints[key].any = layout
    end
end

local function remember_request(connection, record, pinfo)
    record.exchange = { asked_in = pinfo.number, asked_at = pinfo.rel_ts }
    record.is_request = true
end

local function remember_reply(record, request, pinfo)
    record.exchange, record.answered_at = request.exchange, pinfo.rel_ts
    record.exchange.answered_in = record.exchange.answered_in or pinfo.number
end

---- Which layout the next octets of a side have, by what that side writes next and their first octet.

local function channel_layout(own, other_type)
    return function(first)
        if first == 3 then
            return layouts.encapsulated
        elseif first == 1 or first == 2 then
            return first ~= other_type and own or layouts.broken
        end
        return layouts.broken
    end
end

local function reply_layout(first)
    return (first == 5 or first == 1) and layouts.reply or nil
end

local NEXT = {
    client = {
        start = function(first)
            return ({ [4] = layouts.socks4_request, [5] = layouts.greeting })[first]
        end,
        login = function(first, connection)
            if first == 5 then
                return layouts.request
            end
            local chosen = connection.method or (connection.offered[2] and 2)
            return first == 1 and chosen == 2 and layouts.userpass or nil
        end,
        command = function(first)
            return first == 5 and layouts.request or nil
        end,
        associated = function(first)
            return first == 0 and layouts.interface_data or nil
        end,
        channel = channel_layout(layouts.control_request, 2),
    },
    server = {
        start = function(first)
            return ({ [0] = layouts.socks4_reply, [5] = layouts.method })[first]
        end,
        login = function(first)
            return first == 1 and layouts.userpass_reply or nil
        end,
        command = reply_layout,
        associated = reply_layout,
        features = function()
            return layouts.features
        end,
        features_tail = function(first)
            return first == 0 and layouts.features_tail or reply_layout(first)
        end,
        channel = channel_layout(layouts.control_reply, 1),
    },
}
local function next_layout(connection, side, first)
    local state = connection[side]
    if state == "data" then
        return layouts.data
    end
    return NEXT[side][state](first, connection) or layouts.unexpected
end

---- What a message changes, once it is complete: after(connection, said, record, pinfo).

local AFTER_REQUEST = { [3] = "associated", [4] = "channel", [0x10] = "command" }

layouts.greeting.after = function(connection, said)
    connection.client, connection.offered = "login", said.offered
end

layouts.method.after = function(connection, said)
    connection.method = said.method
    connection.server = ({ [0] = "command", [2] = "login" })[said.method] or "data"
    if connection.server == "data" then
        connection.client = "data"
    end
end

layouts.userpass.after = function(connection)
    connection.client = "command"
end

layouts.userpass_reply.after = function(connection)
    connection.server = "command"
end

layouts.request.after = function(connection, said, record, pinfo)
    remember_request(connection, record, pinfo)
    record.cmd = said.cmd
    table.insert(connection.asked, record)
    connection.client = AFTER_REQUEST[said.cmd] or "data"
end

layouts.interface_data.after = function(connection, said, record, pinfo)
    remember_request(connection, record, pinfo)
    table.insert(connection.asked, record)
end

local AFTER_REPLY = {
    [1] = function(connection)
        connection.server = "data"
    end,
    [2] = function(connection, _, request)  -- the second reply tells of the peer that came
        connection.server = request.bound and "data" or "command"
        if not request.bound then
            table.insert(connection.asked, 1, { cmd = 2, bound = true, exchange = request.exchange })
        end
    end,
    [3] = function(connection, said)
        connection.server = "associated"
        learn(connection, said.bnd, layouts.datagram_1928)
    end,
    [4] = function(connection)
        connection.server = "channel"
    end,
    [0x10] = function(connection)
        connection.server = "features"
    end,
}

layouts.reply.before = function(connection, record)
    record.cmd = connection.asked[1] and connection.asked[1].cmd
end

layouts.reply.after = function(connection, said, record, pinfo)
    local request = table.remove(connection.asked, 1)
    if request then
        remember_reply(record, request, pinfo)
    end
    if request and said.rep == 0 and AFTER_REPLY[request.cmd] then
        AFTER_REPLY[request.cmd](connection, said, request)
    end
end

layouts.features.after = function(connection, said)
    connection.server, connection.end_octets = "features_tail", 3 - said.end_octets
    if connection.end_octets == 0 then
        connection.server = "command"
    end
end

layouts.features_tail.before = function(connection, record)
    record.end_octets = connection.end_octets
end

layouts.features_tail.after = function(connection, said)
    connection.end_octets = connection.end_octets - said.end_octets
    connection.server = connection.end_octets > 0 and "features_tail" or "command"
end

layouts.socks4_request.after = function(connection, said, record, pinfo)
    remember_request(connection, record, pinfo)
    record.cmd = said["socks4.command"]
    table.insert(connection.asked, record)
    connection.client = "data"
end

layouts.socks4_reply.after = function(connection, said, record, pinfo)
    local request = table.remove(connection.asked, 1)
    if request then
        remember_reply(record, request, pinfo)
    end
    connection.server = "data"
    if request and request.cmd == 2 and not request.bound and said["socks4.reply"] == 90 then
        connection.server = "start"
        table.insert(connection.asked, { cmd = 2, bound = true, exchange = request.exchange })
    end
end

layouts.control_request.after = function(connection, said, record, pinfo)
    remember_request(connection, record, pinfo)
    record.said = said
    connection.by_tid[said.tid] = record
end

-- A BIND was granted: where its datagrams will be, and whether frames name their sender.
local function bound(connection, asked, said)
    local plain = asked.remote and said["local"] and asked.remote.text == said["local"].text
    if bit.band(asked.flags, TCP_ENCAPSULATED) == 0 and not plain then
        learn(connection, said["local"], layouts.datagram)
    end
    if bit.band(asked.flags, RECEIVE_FROM) ~= 0 then
        connection.reporting[said.aid] = bit.band(said.flags, REPORT_SOURCE) ~= 0
    end
end

layouts.control_reply.after = function(connection, said, record, pinfo)
    local request = connection.by_tid[said.tid]
    connection.by_tid[said.tid] = nil
    if request then
        remember_reply(record, request, pinfo)
    end
    if request and request.said.udpcmd == UDP_BIND and said.reply == 0 then
        bound(connection, request.said, said)
    end
end

layouts.encapsulated.before = function(connection, record, side)
    record.reports = function(aid)
        if record.reported == nil then
            record.reported = side == "server" and connection.reporting[aid] == true
        end
        return record.reported
    end
end

local function falls_silent(connection, _, _, _, side)
    connection[side] = "data"
end
layouts.broken.after = falls_silent
layouts.undersized.after = falls_silent
layouts.unexpected.after = falls_silent

---------------------------------------------------------------- TCP

-- Where a message of the control channel ends; nil: its SIZE has not come yet, or is no SIZE.
local function end_of_sized(layout, tvb, at)
    if tvb:len() - at < 3 then
        return nil
    end
    local size = tvb(at + 1, 2):uint()
    return size >= layout.least and at + size or nil, size
end

-- The next message as { layout, cursor }, or the number of octets that are missing.
local function read_next(layout, tvb, at, record)
    local limit = tvb:len()
    if layout.least then
        local sized_end, size = end_of_sized(layout, tvb, at)
        if not size then
            return nil, DESEGMENT_ONE_MORE_SEGMENT
        elseif not sized_end then
            layout = layouts.undersized
        elseif sized_end > limit then
            return nil, sized_end - limit
        else
            limit = sized_end
        end
    end
    local cursor, whole = read(layout, tvb, at, limit, record)
    if not whole and not layout.least then
        return nil, DESEGMENT_ONE_MORE_SEGMENT
    elseif not whole then
        cursor.at = limit
        cursor:warn(E.runt)
        layout = { title = layout.title, summary = layout.summary, after = falls_silent }
    end
    return { layout = layout, cursor = cursor }
end

-- Wireshark dissects a frame again with the same messages in it, but not always with the same octets behind them. So a
-- message is known again by how it begins; where two do, the longer is meant: 01 00 may be all, or begin a reply.
local BEGINNING = 64

local function remember(frame, record, tvb, at, octets)
    record.octets, record.beginning = octets, tvb:raw(at, math.min(octets, BEGINNING))
    table.insert(frame.records, record)
end

local function known_again(frame, tvb, at)
    local left, found = tvb:len() - at, nil
    local beginning = tvb:raw(at, math.min(left, BEGINNING))
    for _, record in ipairs(frame.records) do
        local fits = record.octets <= left and beginning:sub(1, #record.beginning) == record.beginning
        if fits and (not found or record.octets > found.octets) then
            found = record
        end
    end
    return found
end

local function new_record(connection, tvb, at, side)
    local layout = next_layout(connection, side, tvb(at, 1):uint())
    local record = { layout = layout }
    if layout.before then
        layout.before(connection, record, side)
    end
    return record
end

local function show_exchange(node, record)
    local exchange = record.exchange
    if not exchange then
        return
    elseif record.is_request and exchange.answered_in then
        node:add(F.response_in, exchange.answered_in):set_generated()
    elseif not record.is_request then
        node:add(F.response_to, exchange.asked_in):set_generated()
        local elapsed = record.answered_at - exchange.asked_at
        node:add(F.time, NSTime.new(math.floor(elapsed), math.floor((elapsed % 1) * 1e9 + 0.5))):set_generated()
    end
end

local function headline(layout, cursor, whole)
    local summary = layout.summary and whole ~= false and layout.summary(cursor.said)
    return summary and summary ~= "" and layout.title .. ": " .. summary or layout.title
end

-- Shows the message that starts at `at`. Returns where it ends and its headline, or nil and how much is missing.
local function dissect_message(frame, tvb, at, pinfo, tree, side)
    local connection = frame.connection
    local record = pinfo.visited and known_again(frame, tvb, at)
    if pinfo.visited and not record then
        return nil, frame.missing or DESEGMENT_ONE_MORE_SEGMENT
    end
    record = record or new_record(connection, tvb, at, side)
    local message, missing = read_next(record.layout, tvb, at, record)
    if not message then
        frame.missing = missing
        return nil, missing
    end
    local layout, cursor = message.layout, message.cursor
    if not pinfo.visited then
        remember(frame, record, tvb, at, cursor.at - at)
        if layout.after then
            layout.after(connection, cursor.said, record, pinfo, side)
        end
    end
    local text = headline(layout, cursor)
    show_exchange(show(tree, cursor, text), record)
    return cursor.at, text
end

-- Several messages may share a frame, and Wireshark may come with them one by one: the fence keeps what is there.
local function describe(pinfo, texts)
    pinfo.cols.protocol = "MCASTSOCKS"
    if #texts > 0 then
        pinfo.cols.info:set(table.concat(texts, ", ") .. "  ")
        pinfo.cols.info:fence()
    end
end

-- A first segment that is one whole SOCKS 5 greeting, its methods all different.
local function looks_like_greeting(tvb)
    local octets = tvb:len()
    if octets < 3 or octets > 10 or tvb(0, 1):uint() ~= 5 or tvb(1, 1):uint() ~= octets - 2 then
        return false
    end
    local seen = {}
    for at = 2, octets - 1 do
        local method = tvb(at, 1):uint()
        if seen[method] or method == 0xff then
            return false
        end
        seen[method] = true
    end
    return true
end

local TLS_HANDSHAKE = 0x16
local tls = Dissector.get("tls")
local decrypting = false  -- while the TLS dissector hands back what was inside: a connection within the connection

local function ends_of(pinfo)
    local from = string.format("%s:%d", tostring(pinfo.src), pinfo.src_port)
    local to = string.format("%s:%d", tostring(pinfo.dst), pinfo.dst_port)
    return (decrypting and "inside TLS " or "") .. (from < to and from .. " " .. to or to .. " " .. from)
end

-- Not by tcp.stream, which is not there to be asked for while a capture is read for the first time. So a pair of
-- ports used again shows by the new greeting.
local function connection_of(pinfo, tvb)
    local ends = ends_of(pinfo)
    local connection = connections[ends]
    local used_again = connection and side_of(connection, pinfo) == "client" and connection.client ~= "start"
        and connection.client ~= "login" and looks_like_greeting(tvb)
    if not connection or used_again then
        connection = new_connection(pinfo)
        connections[ends] = connection
    end
    return connection
end

local function frame_of(pinfo, tvb)
    local key = decrypting and -pinfo.number or pinfo.number
    frames[key] = frames[key] or { connection = connection_of(pinfo, tvb), records = {} }
    return frames[key]
end

local function is_tls(connection, tvb)
    if connection.client == "start" and tvb(0, 1):uint() == TLS_HANDSHAKE then
        connection.tls = true
    end
    return connection.tls and not decrypting
end

-- Wireshark reports what goes wrong inside by itself.
local function dissect_tls(tvb, pinfo, tree)
    decrypting = true
    pcall(tls.call, tls, tvb, pinfo, tree)
    decrypting = false
    return tvb:len()
end

local function dissect_tcp(tvb, pinfo, tree)
    local frame = frame_of(pinfo, tvb)
    if is_tls(frame.connection, tvb) then
        return dissect_tls(tvb, pinfo, tree)
    end
    local side, at, texts = side_of(frame.connection, pinfo), 0, {}
    while at < tvb:len() do
        local behind, text = dissect_message(frame, tvb, at, pinfo, tree, side)
        if not behind then
            pinfo.desegment_offset, pinfo.desegment_len = at, text
            break
        end
        at, texts[#texts + 1] = behind, text
    end
    describe(pinfo, texts)
    return tvb:len()
end

---------------------------------------------------------------- UDP

local function learnt_at(address, port, other)
    local known = endpoints[tostring(address) .. ":" .. port]
    return known and (known[tostring(other)] or known.any)
end

local function learnt(pinfo)
    return learnt_at(pinfo.dst, pinfo.dst_port, pinfo.src) or learnt_at(pinfo.src, pinfo.src_port, pinfo.dst)
end

local function dissect_datagram(tvb, pinfo, tree, layout)
    local cursor, whole = read(layout, tvb, 0, tvb:len(), {})
    if not whole then
        cursor.at = tvb:len()
        cursor:warn(E.runt)
    end
    local text = headline(layout, cursor, whole)
    show(tree, cursor, text)
    describe(pinfo, { text })
    return tvb:len()
end

local function dissect_udp(tvb, pinfo, tree)
    claimed[pinfo.number] = claimed[pinfo.number] or learnt(pinfo) or layouts.datagram
    return dissect_datagram(tvb, pinfo, tree, claimed[pinfo.number])
end

function proto.dissector(tvb, pinfo, tree)
    if tvb:len() == 0 then
        return 0
    elseif pinfo.port_type == 2 then
        return dissect_tcp(tvb, pinfo, tree)
    end
    return dissect_udp(tvb, pinfo, tree)
end

---------------------------------------------------------------- guesses

proto:register_heuristic("tcp", function(tvb, pinfo, tree)
    if not (frames[pinfo.number] or connections[ends_of(pinfo)] or looks_like_greeting(tvb)) then
        return false
    end
    pinfo.conversation = proto
    dissect_tcp(tvb, pinfo, tree)
    return true
end)

local OTHERS_PORTS = { [53] = true, [123] = true, [137] = true, [1900] = true, [3478] = true, [5353] = true,
    [5355] = true }
local STUN_COOKIE = 0x2112a442

-- A source block of a global sort: a unicast address and a port.
local function looks_like_source(tvb)
    local atyp = tvb:len() >= 15 and tvb(8, 1):uint()
    if atyp == 1 then
        local first = tvb(9, 1):uint()
        return first > 0 and first < 224 and tvb(13, 2):uint() ~= 0
    elseif atyp == 4 and tvb:len() >= 27 then
        local first = tvb(9, 1):uint()
        return (first == 0xfd or first == 0xfe or bit.band(first, 0xe0) == 0x20) and tvb(25, 2):uint() ~= 0
    end
    return false
end

-- Standalone datagrams alone: fragments without more around them could be anything. AIDs are random; one whose first
-- octet is 0 could be the counts of a DNS message. RTP has other bits in the first octet; DNS, where that octet is
-- 0 to 3, has its flags where DGID is 0 here.
local function looks_like_datagram(tvb)
    if tvb:len() < HEADER_OCTETS or tvb(1, 3):uint() ~= 0 then
        return false
    elseif tvb(4, 1):uint() == 0 or tvb(4, 4):uint() == STUN_COOKIE then
        return false
    end
    local rsv = tvb(0, 1):uint()
    if rsv == SOURCE_PRESENT then
        return looks_like_source(tvb)
    elseif rsv == 2 or rsv == 3 then  -- PN counts from 0: its upper half is 0 for long
        return tvb:len() >= HEADER_OCTETS + 8 + TAG_OCTETS and tvb(8, 4):uint() == 0
    end
    return rsv == 0
end

proto:register_heuristic("udp", function(tvb, pinfo, tree)
    local guess = proto.prefs.guess_udp and not OTHERS_PORTS[pinfo.src_port] and not OTHERS_PORTS[pinfo.dst_port]
    if tvb:len() == 0 or not (claimed[pinfo.number] or learnt(pinfo) or (guess and looks_like_datagram(tvb))) then
        return false
    end
    dissect_udp(tvb, pinfo, tree)
    return true
end)

---------------------------------------------------------------- registration

local TABLES = { { "tcp.port", "tcp_ports" }, { "tls.port", "tcp_ports" }, { "udp.port", "udp_ports" } }

local function register(change)
    for _, each in ipairs(TABLES) do
        local ports = DissectorTable.get(each[1])
        ports[change](ports, preferences[each[2]], proto)
    end
end

register("add")

function proto.prefs_changed()
    register("remove")
    preferences.tcp_ports, preferences.udp_ports = proto.prefs.tcp_ports, proto.prefs.udp_ports
    register("add")
end

function proto.init()
    connections, frames, endpoints, claimed = {}, {}, {}, {}
end
