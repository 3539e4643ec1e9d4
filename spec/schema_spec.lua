-- SPDX-License-Identifier: MIT
local errors = require("farcall.errors")
local json = require("farcall.core.json")
local schema = require("farcall.schema")

local function compiled(said)
  return assert(schema.compile(said))
end

-- Each row: the JSON of a value, and the JSON of what comes back or the message in parentheses.
local function check(said, rows)
  local validator = compiled(said)
  for _, row in ipairs(rows) do
    local value, bad = json.decode(row[1])
    assert.is_nil(bad)
    local result, message = validator(value)
    if row[2]:sub(1, 1) == "(" then
      assert.is_nil(result, row[1])
      assert.equal(row[2], "(" .. tostring(message) .. ")")
    else
      assert.is_nil(message, row[1] .. ": " .. tostring(message))
      assert.same(json.decode(row[2]), result)
    end
    assert.same(json.decode(row[1]), value)
  end
end

local read_file = {
  type = "object",
  properties = {
    path = { type = "string", minLength = 1, description = "the file" },
    limit = { type = "integer", minimum = 1, maximum = 1000, default = 500 },
    mode = { type = "string", enum = { "text", "bytes" }, default = "text" },
  },
  required = { "path" },
  additionalProperties = false,
}

describe("schema.compile", function()
  it("fills defaults into a new table", function()
    local given = json.decode('{"path":"a"}')
    local result = compiled(read_file)(given)
    assert.same({ path = "a", limit = 500, mode = "text" }, result)
    assert.same({ path = "a" }, given)
    check(read_file, {
      { '{"path":"a","limit":7,"mode":"bytes"}', '{"path":"a","limit":7,"mode":"bytes"}' },
    })
  end)

  it("says what is wrong, and where", function()
    check(read_file, {
      { '{"path":"a","limit":"ten"}', '(limit: expected an integer, got the string "ten")' },
      { '{"path":"a","limit":1.5}', "(limit: expected an integer, got the number 1.5)" },
      { '{"path":"a","limit":0.1}', "(limit: expected an integer, got the number 0.1)" },
      { '{"path":"a","limit":null}', "(limit: expected an integer, got null)" },
      { '{"path":"a","limit":[]}', "(limit: expected an integer, got an array)" },
      { '{"path":"a","limit":{}}', "(limit: expected an integer, got an object)" },
      { '{"path":"a","limit":0}', "(limit: expected at least 1, got the number 0)" },
      { '{"path":"a","limit":1001}', "(limit: expected at most 1000, got the number 1001)" },
      { '{"path":7}', "(path: expected a string, got the number 7)" },
      { '{"path":""}', "(path: expected at least 1 character, got 0)" },
      { "{}", "(path: is missing)" },
      { '{"path":"a","mode":"txt"}',
        '(mode: expected one of "text", "bytes", got the string "txt")' },
      { '{"path":"a","limt":1}', '(there is no "limt" (did you mean "limit"?))' },
      { '{"path":"a","colour":1}', '(there is no "colour" (there are: limit, mode, path))' },
      { "[]", "(expected an object, got an array)" },
      { '"a"', '(expected an object, got the string "a")' },
    })
  end)

  it("looks into arrays and objects", function()
    check({
      type = "array", minItems = 1, maxItems = 3,
      items = {
        type = "object", required = { "n" },
        properties = {
          n = { type = "number" }, tags = { type = "array", items = { type = "string" } },
        },
        additionalProperties = { type = "boolean" },
      },
    }, {
      { '[{"n":1,"more":true}]', '[{"n":1,"more":true}]' },
      { '[{"n":1,"tags":[]}]', '[{"n":1,"tags":[]}]' },
      { "[]", "(expected at least 1 item, got 0)" },
      { "{}", "(expected an array, got an object)" },
      { "[1,2,3,4]", "(expected at most 3 items, got 4)" },
      { '[{"n":1},{"n":"1"}]', '([1].n: expected a number, got the string "1")' },
      { '[{"n":1,"tags":["a",2]}]', "([0].tags[1]: expected a string, got the number 2)" },
      { '[{"n":1,"more":1}]', "([0].more: expected a boolean, got the number 1)" },
      { '[{"n":1,"two words":1}]', '([0]["two words"]: expected a boolean, got the number 1)' },
      { "[{}]", "([0].n: is missing)" },
    })
    check({ prefixItems = { { type = "string" }, { type = "integer" } }, items = false }, {
      { '["a",1]', '["a",1]' }, { '["a"]', '["a"]' }, { "7", "7" },
      { '["a",1,2]', "([2]: nothing is allowed here)" },
      { '[1]', "([0]: expected a string, got the number 1)" },
    })
    check({ minProperties = 1, maxProperties = 2 }, {
      { '{"a":1}', '{"a":1}' }, { "[]", "[]" }, { "{}", "(expected at least 1 field, got 0)" },
      { '{"a":1,"b":2,"c":3}', "(expected at most 2 fields, got 3)" },
    })
  end)

  it("keeps arrays arrays and empty objects objects", function()
    local validator = compiled({
      properties = { list = { items = {} }, map = { properties = {} } },
    })
    local result = validator(json.decode('{"list":[],"map":{}}'))
    assert.equal("[]", json.encode(result.list))
    assert.equal("{}", json.encode(result.map))
    -- A table that Lua wrote and nobody marked may be either.
    assert.equal("[]", json.encode(compiled({ type = "array", items = {} })({})))
    assert.equal("{}", json.encode(compiled({ type = "object", properties = {} })({})))
  end)

  it("knows every type, and lists of types", function()
    local values = {
      null = "null", boolean = "false", string = '"s"', number = "1.5", array = "[1]",
      object = '{"a":1}',
    }
    for wanted in pairs(values) do
      local validator = compiled({ type = wanted })
      for name, text in pairs(values) do
        local result, message = validator(json.decode(text))
        assert.equal(name == wanted, message == nil, wanted .. " " .. text)
        assert.is_true(message ~= nil or result ~= nil)
      end
    end
    check({ type = { "string", "null" } }, {
      { '"a"', '"a"' }, { "null", "null" },
      { "1", "(expected a string or null, got the number 1)" },
    })
    check({ type = "integer" }, { { "1.0", "1" }, { "-3e2", "-300" }, { "1e300", "1e300" } })
  end)

  it("takes integers beyond 2^53 as integers", function()
    check({ type = "integer", minimum = 0 }, {
      { "9007199254740993", '"9007199254740993"' },
      { "18446744073709551616", '"18446744073709551616"' },
      { "-9007199254740993", '(expected at least 0, got the string "-9007199254740993")' },
      { '"9007199254740992"', '(expected an integer, got the string "9007199254740992")' },
      { '"17"', '(expected an integer, got the string "17")' },
      { '"09007199254740993"', '(expected an integer, got the string "09007199254740993")' },
    })
    check({ type = "number" }, { { "9007199254740993", '"9007199254740993"' } })
    check({ type = "string" }, { { "9007199254740993", '"9007199254740993"' } })
  end)

  it("bounds numbers and texts", function()
    check({ exclusiveMinimum = 0, exclusiveMaximum = 10, multipleOf = 0.5 }, {
      { "0.5", "0.5" }, { "0", "(expected more than 0, got the number 0)" },
      { "10", "(expected less than 10, got the number 10)" },
      { "0.7", "(expected a multiple of 0.5, got the number 0.7)" }, { '"x"', '"x"' },
    })
    check({ minLength = 2, maxLength = 3 }, {
      { '"\195\164\195\182"', '"\195\164\195\182"' },
      { '"\240\159\152\128\226\130\172x"', '"\240\159\152\128\226\130\172x"' },
      { '"\195\164"', "(expected at least 2 characters, got 1)" },
      { '"abcd"', "(expected at most 3 characters, got 4)" }, { "1", "1" },
    })
  end)

  it("compares with const and enum", function()
    check({ const = json.decode('{"a":[1,{}]}') }, {
      { '{"a":[1,{}]}', '{"a":[1,{}]}' }, { '{"a":[1,[]]}', "(expected an object, got an object)" },
      { '{"a":[1]}', "(expected an object, got an object)" }, { "1", "(expected an object, got "
        .. "the number 1)" },
    })
    check({ enum = { 1, "1", json.null, { 1, 2 }, false } }, {
      { "1", "1" }, { '"1"', '"1"' }, { "null", "null" }, { "[1,2]", "[1,2]" },
      { "false", "false" },
      { "[2,1]", '(expected one of 1, "1", null, an array, false, got an array)' },
      { "true", '(expected one of 1, "1", null, an array, false, got true)' },
    })
  end)

  it("combines schemas", function()
    local with_a = { type = "object", properties = { a = { default = 1 } } }
    check({ anyOf = { { type = "string" }, with_a } }, {
      { '"x"', '"x"' }, { "{}", '{"a":1}' },
      { "1", "(fits none of the alternatives: expected a string, got the number 1; "
        .. "expected an object, got the number 1)" },
    })
    check({ oneOf = { { minimum = 5 }, { maximum = 7 } } }, {
      { "4", "4" }, { "8", "8" }, { "6", "(fits more than one of the alternatives)" },
    })
    check({ oneOf = { { type = "string" }, { properties = { a = { type = "null" } },
      type = "object" } } }, {
      { '{"a":1}', '(fits none of the alternatives: expected a string, got an object; '
        .. "a: expected null, got the number 1)" },
    })
    check({ allOf = { with_a, { properties = { b = { default = 2 } } } } }, {
      { "{}", '{"a":1,"b":2}' },
    })
    check({ ["not"] = { type = "string" } }, {
      { "1", "1" }, { '"x"', '(the string "x" is excluded)' },
    })
    check(true, { { "1", "1" } })
    check(false, { { "1", "(nothing is allowed here)" } })
    check({}, { { "[{}]", "[{}]" } })
    check({ oneOf = { { type = "boolean" }, { type = "null" } } }, { { "false", "false" } })
  end)

  it("gives each value a default of its own", function()
    local validator = compiled({ properties = { list = { type = "array", default = { 1 } } } })
    local first = validator({})
    first.list[1] = 2
    assert.same({ list = { 1 } }, validator({}))
  end)

  it("leaves a default of false and of null as it is", function()
    local validator = compiled({
      properties = { a = { default = false }, b = { default = json.null } },
    })
    assert.same({ a = false, b = json.null }, validator({}))
    assert.same({ a = true, b = 1 }, validator({ a = true, b = 1 }))
  end)

  it("shows hostile values so that a message stays one line of valid UTF-8", function()
    local validator = compiled({ type = "object", properties = {}, additionalProperties = false })
    for _, key in ipairs({ "a\nb\27[2J", ("\195\164"):rep(200), '"', "\127" }) do
      local _, message = validator({ [key] = 1 })
      assert.is_nil(message:find("%c"))
      assert.is_string(json.encode(message))
      assert.is_true(#message < 150)
    end
  end)

  it("refuses schemas that say what is not kept, or nothing sensible", function()
    for message, said in pairs({
      ['unknown keyword "propertys" (did you mean "properties"?)'] = { propertys = {} },
      ['properties.a: unknown keyword "min_length" (did you mean "minLength"?)'] =
        { properties = { a = { min_length = 1 } } },
      ['unknown keyword "zzz"'] = { zzz = 1 },
      ["items: pattern is not supported: check it in the handler"] = { items = { pattern = "x" } },
      ["$ref is not supported: check it in the handler"] = { ["$ref"] = "#" },
      ['type: unknown type "int" (did you mean "integer"?)'] = { type = "int" },
      ['type: unknown type "strng" (did you mean "string"?)'] = { type = { "null", "strng" } },
      ["type: must be a type or a list of types"] = { type = {} },
      ["enum: must be a list of values"] = { enum = "a" },
      ["minimum: must be a number"] = { minimum = "1" },
      ["minLength: must be a whole number, not negative"] = { minLength = -1 },
      ["multipleOf: must be a number above 0"] = { multipleOf = 0 },
      ["required: must be a list of names"] = { required = "a" },
      ['required: there is no property "b"'] =
        { properties = { a = {} }, required = { "b" }, additionalProperties = false },
      ["properties: must be a table of schemas"] = { properties = "a" },
      ["properties.a: must be a schema: a table"] = { properties = { a = "string" } },
      ["properties.a.default: expected a string, got the number 1"] =
        { properties = { a = { type = "string", default = 1 } } },
      ["anyOf: must be a list of schemas"] = { anyOf = {} },
      ['anyOf[1].type: unknown type "x"'] = { anyOf = { {}, { type = "x" } } },
      ["must be a schema: a table"] = "object",
    }) do
      assert.same({ nil, message }, { schema.compile(said) })
    end
  end)

  it("ignores annotations", function()
    assert.is_function(schema.compile({
      title = "t", description = "d", examples = { 1 }, format = "uri", deprecated = true,
      ["$schema"] = "https://json-schema.org/draft/2020-12/schema", ["$comment"] = "c",
    }))
  end)
end)

describe("schema.suggest", function()
  it("finds what a word was meant to be", function()
    local names = { "terminal", "read_file", "write_file", "search_files", "patch" }
    for word, meant in pairs({
      termnal = "terminal", ternimal = "terminal", terminl = "terminal",
      ["read-file"] = "read_file", readfile = "read_file", Patch = "patch",
      writ_file = "write_file", term = "terminal", search = "search_files", pacth = "patch",
    }) do
      assert.equal(meant, schema.suggest(word, names), word)
    end
    for _, word in ipairs({ "", "x", "docker", "te", "qqqqqqqqqqqq", ("terminal"):rep(100) }) do
      assert.is_nil(schema.suggest(word, names), word)
    end
    assert.is_nil(schema.suggest(nil, names))
    assert.is_nil(schema.suggest("abc", {}))
    assert.is_nil(schema.suggest("a", { "b" }))
  end)
end)

describe("schema.options", function()
  local declarations = {
    image = { type = "string", required = true, doc = "the image to run" },
    memory = { type = "size", default = "1g" },
    timeout = { type = "seconds" },
    retries = { type = "integer", default = 3 },
    ratio = { type = "number" },
    privileged = { type = "boolean", default = false },
    volumes = { type = "list" },
    env = { type = "map" },
    network = { type = "string", one_of = { "none", "bridge" }, default = "none" },
    key = { type = "path" },
    password = { type = "string", secret = true, one_of = { "hunter2" } },
    hook = { type = "function" },
  }

  local function wrong(values, message)
    local result, err = schema.options(declarations, values, "backend box")
    assert.is_nil(result)
    assert.is_true(errors.is(err))
    assert.equal("config", err.kind)
    assert.equal("backend box: " .. message, tostring(err))
  end

  it("fills defaults and leaves what was given alone", function()
    local given = { image = "a", volumes = { "x" }, hook = print, timeout = 2 }
    local result = assert(schema.options(declarations, given, "backend box"))
    assert.same({
      image = "a", memory = 2 ^ 30, retries = 3, privileged = false, network = "none", timeout = 2,
      volumes = { "x" }, hook = print,
    }, result)
    result.volumes[1] = "y"
    assert.same({ image = "a", volumes = { "x" }, hook = print, timeout = 2 }, given)
    assert.same({}, schema.options(nil, nil, "backend local"))
    assert.same({}, schema.options({}, {}, "backend local"))
  end)

  it("converts texts of the command line", function()
    local function one(name, text)
      local result = assert(schema.options(declarations, { image = "a", [name] = text }, "b"))
      return result[name]
    end
    for text, value in pairs({
      ["512"] = 512, ["10k"] = 10240, ["1.5g"] = 1.5 * 2 ^ 30, ["2GiB"] = 2 ^ 31, ["1M"] = 2 ^ 20,
      ["3mb"] = 3 * 2 ^ 20, ["8b"] = 8, ["1 t"] = 2 ^ 40,
    }) do
      assert.equal(value, one("memory", text), text)
    end
    for text, value in pairs({
      ["5"] = 5, ["1.5"] = 1.5, ["500ms"] = 0.5, ["30s"] = 30, ["2m"] = 120, ["1h"] = 3600,
      ["1d"] = 86400,
    }) do
      assert.equal(value, one("timeout", text), text)
    end
    for text, value in pairs({ ["7"] = 7, ["-7"] = -7, ["0x10"] = 16, ["0o22"] = 18, ["0"] = 0 }) do
      assert.equal(value, one("retries", text), text)
    end
    assert.equal(0.25, one("ratio", "0.25"))
    for text, value in pairs({
      yes = true, ON = true, ["1"] = true, no = false, ["false"] = false,
    }) do
      assert.equal(value, one("privileged", text), text)
    end
    assert.is_true(one("privileged", true))
    assert.is_false(one("privileged", false))
    assert.same({ "a", "b c" }, one("volumes", "a, b c"))
    assert.same({}, one("volumes", ""))
    assert.same({ A = "1", B = "x=y", C = "" }, one("env", "A=1,B=x=y,C="))
  end)

  it("refuses with the name, what it must be, and the nearest", function()
    wrong({}, "option image is missing (the image to run)")
    wrong({ image = "a", memry = 1 }, "there is no option memry (did you mean memory?)")
    wrong({ image = 5 }, "option image must be a text, not 5")
    wrong({ image = "a", retries = "three" }, 'option retries must be a whole number, not "three"')
    wrong({ image = "a", retries = 1.5 }, "option retries must be a whole number, not 1.5")
    wrong({ image = "a", retries = "022" },
      'option retries must be a number without leading zeros (0o for octal), not "022"')
    wrong({ image = "a", ratio = 0 / 0 }, "option ratio must be a number, not " .. tostring(0 / 0))
    wrong({ image = "a", memory = "1x" },
      'option memory must be a size such as 512m or 1g, or a number of bytes, not "1x"')
    wrong({ image = "a", memory = -1 },
      "option memory must be a size such as 512m or 1g, or a number of bytes, not -1")
    wrong({ image = "a", timeout = "soon" },
      'option timeout must be a time such as 500ms, 30s or 2m, or a number of seconds, not "soon"')
    wrong({ image = "a", privileged = "maybe" },
      'option privileged must be true or false, not "maybe"')
    wrong({ image = "a", privileged = 1 }, "option privileged must be true or false, not 1")
    wrong({ image = "a", volumes = { a = 1 } }, "option volumes must be a list, not a table")
    wrong({ image = "a", env = { 1 } },
      "option env must be a table of names and values, not a table")
    wrong({ image = "a", env = "A" }, 'option env must be a table of names and values, not "A"')
    wrong({ image = "a", network = "bridg" },
      'option network must be one of none, bridge, not "bridg" (did you mean bridge?)')
    wrong({ image = "a", key = "" }, 'option key must be a path, not ""')
    wrong({ image = "a", key = "a\0b" }, 'option key must be a path, not "a\\0b"')
    wrong({ image = "a", hook = 1 }, "option hook must be a function, not 1")
    wrong({ image = "a", [1] = "x" }, "option 1 has no name: options are written name = value")
  end)

  it("never shows a secret", function()
    for _, value in ipairs({ "letmein", 12345 }) do
      local _, err = schema.options(declarations, { image = "a", password = value }, "backend box")
      assert.is_nil(tostring(err):find("letmein"))
      assert.is_nil(tostring(err):find("12345"))
      -- Nor what it might have been.
      assert.is_nil(tostring(err):find("hunter2"))
    end
  end)

  it("refuses declarations with a slip in them", function()
    local function declared(declaration)
      local _, err = schema.options({ a = declaration }, {}, "backend box")
      return tostring(err)
    end
    assert.equal("backend box: option a is declared with the unknown type strng (did you mean "
      .. "string?)", declared({ type = "strng" }))
    assert.equal("backend box: option a is declared with the unknown field defalt (did you mean "
      .. "default?)", declared({ type = "string", defalt = 1 }))
    assert.equal("backend box: option a is not declared with a table", declared("string"))
    assert.equal("backend box: option a must be a whole number, not \"x\"",
      declared({ type = "integer", default = "x" }))
  end)
end)
