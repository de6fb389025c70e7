// Compiles one Move package without a network: node compile.mjs PACKAGE STUBS > build.json
import { sources, stubFetcher, load } from './builder.mjs';

const [, , packageFolder, stubsFolder] = process.argv;
const builder = await load('@zktx.io/sui-move-builder');
await builder.initMovePackageBuilder();
const result = await builder.dumpMovePackage({
  files: sources(packageFolder), network: 'mainnet', fetcher: stubFetcher(stubsFolder), lintFlag: 'default',
});
if ('error' in result) {
  console.error(result.category, result.error);
  process.exit(1);
}
if (result.warnings) console.error(result.warnings);
const { modules, dependencies } = result;
const digest = Buffer.from(result.digest).toString('hex');
process.stdout.write(JSON.stringify({ modules, dependencies, digest }));
