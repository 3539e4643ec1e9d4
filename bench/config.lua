-- What the benchmarks run under: trivial tools, the two policies that most operators have.
tool "echo" {
  summary = "Returns its argument.",
  parameters = { type = "object", properties = { n = { type = "integer" } }, required = { "n" } },
  handler = function(args)
    return { n = args.n }
  end,
}
tools { "echo" }
policy "allow" { tools = { "echo" } }
policy "budget" { max_calls = 1000000 }
limits { max_calls = 1000000 }
