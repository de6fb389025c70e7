// Runs the Move unit tests of one package: node test.mjs PACKAGE STUBS. Exit code 1 if one fails.
// Uses the compiler's own VM; framework calls are stubs there and abort, so the tests are of pure code.
import { sources, stubFetcher, load } from './builder.mjs';

const [, , packageFolder, stubsFolder] = process.argv;
const builder = await load('@zktx.io/sui-move-builder/full');
await builder.initMovePackageBuilder();
const result = await builder.testMovePackage({
  files: sources(packageFolder), network: 'mainnet', fetcher: stubFetcher(stubsFolder), silenceWarnings: true,
});
console.log(result.output ?? result.error ?? JSON.stringify(result));
process.exit(result.passed === true && !result.error ? 0 : 1);
